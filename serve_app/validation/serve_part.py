"""Serve's own part of the file: unknown keys, which Serve ignores in silence, and the ranges of its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.explain import nearest
from serve_app.validation.bounds import Bound
from serve_app.validation.report import Report
from serve_app.validation.sources import serve_keys

ROOT = "ServeDeploySchema"
IMPORT_PATH = "serve_app.app:build"
EXPORTER_PATH = "serve_app.deployments.cost_exporter:build"
CHILDREN = {
    ROOT: {
        "http_options": "HTTPOptionsSchema",
        "grpc_options": "gRPCOptionsSchema",
        "controller_options": "ControllerOptions",
        "logging_config": "LoggingConfig",
        "tracing_config": "TracingConfig",
        "applications": "ServeApplicationSchema",
    },
    "ServeApplicationSchema": {"deployments": "DeploymentSchema", "logging_config": "LoggingConfig"},
    "DeploymentSchema": {
        "autoscaling_config": "AutoscalingConfig",
        "backpressure_config": "BackpressureConfig",
        "deployment_actors": "DeploymentActorConfig",
        "gang_scheduling_config": "GangSchedulingConfig",
        "logging_config": "LoggingConfig",
        "ray_actor_options": "RayActorOptionsSchema",
        "request_router_config": "RequestRouterConfig",
    },
    "AutoscalingConfig": {"policy": "AutoscalingPolicy"},
}
SCHEMAS = (ROOT, *(schema for children in CHILDREN.values() for schema in children.values()))
LISTS = ("applications", "deployments", "deployment_actors")
NEEDED = ("http_options", "grpc_options", "applications", "deployments", "ray_actor_options", "backpressure_config", "policy")

_POSITIVE = Bound(above=True)
_POSITIVE_OR_NULL = Bound(above=True, nullable=True)
_AMOUNT = Bound(nullable=True)
BOUNDS = {
    "HTTPOptionsSchema": {
        "port": Bound(1, 65535, whole=True),
        "request_timeout_s": _POSITIVE_OR_NULL,
        "keep_alive_timeout_s": Bound(whole=True),
    },
    "gRPCOptionsSchema": {"port": Bound(1, 65535, whole=True)},
    "DeploymentSchema": {
        "max_ongoing_requests": Bound(1, whole=True),
        "max_queued_requests": Bound(-1, whole=True),
        "graceful_shutdown_wait_loop_s": Bound(),
        "graceful_shutdown_timeout_s": Bound(),
        "health_check_period_s": _POSITIVE,
        "health_check_timeout_s": _POSITIVE,
        "max_replicas_per_node": Bound(1, 100, whole=True),
        "rolling_update_percentage": Bound(0, 1, above=True),
        "max_surge_percent": Bound(0, 100, whole=True),
    },
    "AutoscalingConfig": {
        "min_replicas": Bound(whole=True),
        "initial_replicas": Bound(whole=True, nullable=True),
        "max_replicas": Bound(1, whole=True),
        "target_ongoing_requests": _POSITIVE,
        "metrics_interval_s": _POSITIVE,
        "look_back_period_s": _POSITIVE,
        "smoothing_factor": _POSITIVE,
        "upscale_smoothing_factor": _POSITIVE_OR_NULL,
        "downscale_smoothing_factor": _POSITIVE_OR_NULL,
        "upscaling_factor": _POSITIVE_OR_NULL,
        "downscaling_factor": _POSITIVE_OR_NULL,
        "downscale_delay_s": Bound(),
        "downscale_to_zero_delay_s": _AMOUNT,
        "upscale_delay_s": Bound(),
    },
    "RayActorOptionsSchema": {"num_cpus": _AMOUNT, "num_gpus": _AMOUNT, "memory": _AMOUNT},
}


def check(config: Mapping[Any, Any], report: Report) -> None:
    """Every key of every schema, then the one application."""
    if missing := [schema for schema in SCHEMAS if serve_keys(schema) is None]:
        report.warning("ray", f"the installed version has no {', '.join(missing)} where it is looked for: these keys were not checked")
    _check_mapping(config, ROOT, "", report)
    if "applications" not in config:
        report.problem("applications", "needed, but missing")
    elif isinstance(config["applications"], list):
        _check_applications(config["applications"], report)


def application(config: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The first application; empty when there is none."""
    applications = config.get("applications")
    first = applications[0] if isinstance(applications, list) and applications else None
    return first if isinstance(first, Mapping) else {}


def deployments(config: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The path and the mapping of each deployment of the first application."""
    listed = application(config).get("deployments")
    for index, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, Mapping):
            yield f"applications.0.deployments.{index}", item


def _check_mapping(value: Mapping[Any, Any], schema: str, where: str, report: Report) -> None:
    known = serve_keys(schema)
    for key, inner in value.items():
        path = f"{where}.{key}" if where else str(key)
        bound = BOUNDS.get(schema, {}).get(key)
        if known is not None and key not in known:
            report.problem(path, f"unknown key{nearest(str(key), sorted(known))}")
        elif bound is not None and (complaint := bound.complaint(inner)):
            report.problem(path, complaint)
        elif child := CHILDREN.get(schema, {}).get(key):
            _check_child(inner, key, child, path, report)


def _check_child(value: Any, key: str, schema: str, path: str, report: Report) -> None:
    if value is None and key not in NEEDED:
        return
    if key not in LISTS:
        _check_item(value, schema, path, report)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_item(item, schema, f"{path}.{index}", report)
    else:
        report.problem(path, f"must be a list, got {value!r:.60}")


def _check_item(value: Any, schema: str, path: str, report: Report) -> None:
    if isinstance(value, Mapping):
        _check_mapping(value, schema, path, report)
    else:
        report.problem(path, f"must be a mapping, got {value!r:.60}")


def _is_exporter(application: Any) -> bool:
    """The cost exporter may be an application of its own beside the graph."""
    return isinstance(application, Mapping) and application.get("import_path") == EXPORTER_PATH


def _check_applications(applications: list[Any], report: Report) -> None:
    if not applications or any(not _is_exporter(other) for other in applications[1:]):
        report.problem("applications", f"must hold tierwise alone, but there are {len(applications)}")
    if not applications or not isinstance(applications[0], Mapping):
        return
    app = applications[0]
    if app.get("import_path") != IMPORT_PATH:
        report.problem("applications.0.import_path", f"must be {IMPORT_PATH!r}, got {app.get('import_path')!r:.60}")
    for key in ("host", "port"):
        if key in app:
            report.problem(f"applications.0.{key}", f"Serve refuses it here: it belongs to http_options.{key}")
    prefix = app.get("route_prefix", "/")
    if prefix is not None and not (isinstance(prefix, str) and prefix.startswith("/")):
        report.problem("applications.0.route_prefix", f"must begin with '/', got {prefix!r:.60}")
