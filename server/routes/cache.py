"""POST /admin/cache/clear: forget every cached prefix."""

from fastapi import APIRouter

from server.dependencies import CallerDep, EngineDep
from server.schemas.common import ClearedCache, answers_with

router = APIRouter(tags=["admin"])


@router.post("/admin/cache/clear", responses=answers_with())
async def clear_cache(engine: EngineDep, _: CallerDep) -> ClearedCache:
    """Forget every cached prefix, and tell how many blocks that were; what runs goes on undisturbed."""
    return ClearedCache(num_forgotten_blocks=await engine.clear_cache())
