"""GET /v1/contract: what this server does with every field of every request body."""

from fastapi import APIRouter
from pydantic import JsonValue, TypeAdapter

from server.contract.document import contract_body
from server.dependencies import CallerDep
from server.schemas.common import answers_with

_Contract = dict[str, list[dict[str, JsonValue]]]

router = APIRouter(tags=["contract"])


@router.get("/v1/contract", responses=answers_with())
async def get_contract(_: CallerDep) -> _Contract:
    """Tell for each field whether it is supported, refused or a hint."""
    return TypeAdapter(_Contract).validate_python(contract_body())
