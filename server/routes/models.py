"""GET /v1/models and GET /v1/models/{model_id}: the one model that is served, under each of its names."""

from fastapi import APIRouter, HTTPException, Request

from server.answering import require_model, served_names
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.schemas.common import Model, ModelList, answers_with

OWNER = "ringserve"

router = APIRouter(tags=["models"])


@router.get("/v1/models", responses=answers_with())
async def list_models(request: Request, engine: EngineDep, settings: SettingsDep, _: CallerDep) -> ModelList:
    """List the served models."""
    names = served_names(engine, settings)
    return ModelList(object="list", data=[_model(name, request) for name in names])


@router.get("/v1/models/{model_id:path}", responses=answers_with())
async def get_model(
    model_id: str, request: Request, engine: EngineDep, settings: SettingsDep, _: CallerDep
) -> Model:
    """Describe one model."""
    if not model_id:
        raise HTTPException(404)  # the path of no endpoint, rather than a model without a name
    require_model(engine, settings, model_id)
    return _model(model_id, request)


def _model(model_id: str, request: Request) -> Model:
    return Model(id=model_id, created=request.app.state.started_s, object="model", owned_by=OWNER)
