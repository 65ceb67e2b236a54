"""Runs the routes that bring images without FastAPI, which took a sixth of the event loop's time of a request.

FastAPI describes them for `/openapi.json`. What it puts around an endpoint, such as the stacks that close dependencies,
these do not use. Every other path and method goes to it.
"""

from collections.abc import Awaitable, Callable, Iterable

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ClientGone, ServiceError, unknown_error
from service.http.context import RequestContext
from service.http.responses import client_gone_response, error_response

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct:
    """`POST` to the path of an endpoint calls it. An unknown exception is answered, and then left to `Observe`."""

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        """routers: whose endpoints all take the request alone, and only by POST."""
        self._app = app
        self._endpoints: dict[str, Endpoint] = {
            route.path: route.endpoint for router in routers for route in router.routes if isinstance(route, APIRoute)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope.get("method") == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive, send))
        except ServiceError as error:
            response = error_response(error, RequestContext.of(scope))
        except ClientGone as error:
            response = client_gone_response(error, RequestContext.of(scope))
        except Exception:
            # Here, as FastAPI does, and not in `Observe`: only answers from inside of CORS can be read by a page.
            await error_response(unknown_error(), RequestContext.of(scope))(scope, receive, send)
            raise
        await response(scope, receive, send)
