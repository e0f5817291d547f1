"""What a Compute is asked to be, checked at the call that asks.

Every message names the field first. What only the API server can refuse is not checked here. The subtle thing: the
keywords are one TypedDict, shared by `Compute` and `compute`, so there is one list of them and one place that
explains an unknown one.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from skytorch import errors
from skytorch.client._events import EventCallback
from skytorch.client._metrics import MetricsCallback
from skytorch.client._quantity import check_quantity
from skytorch.providers import Placement, ProviderName, check_provider

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_ENV = re.compile(r"[-._A-Za-z][-._A-Za-z0-9]*")
_ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
DEFAULT_TIMEOUT_S = 300.0


class WrongKeyword(errors.InvalidArgument, TypeError):
    """A keyword or a type that does not exist: a TypeError like Python's own."""


class Volume(TypedDict):
    """One volume of a Compute."""

    name: str
    storage: str
    path: str
    storage_class: NotRequired[str | None]
    access_modes: NotRequired[Sequence[str]]


class Options(TypedDict, total=False):
    """The keywords of `Compute` and `compute`."""

    image: str | None
    command: Sequence[str] | None
    args: Sequence[str] | None
    env: Mapping[str, str] | None
    resources: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    annotations: Mapping[str, str] | None
    suspend: bool
    volumes: Sequence[Volume] | None
    override: Mapping[str, Any] | None
    idle_timeout: float
    image_pull_policy: str | None
    adopt: bool
    provider: ProviderName | None
    on_events: EventCallback | None
    on_metrics: MetricsCallback | None
    timeout: float


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The checked wish."""

    placement: Placement
    suspend: bool = False
    provider: str | None = None
    on_events: EventCallback | None = None
    on_metrics: MetricsCallback | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def check(cls, name: object, options: Mapping[str, Any]) -> Spec:
        """The spec of a call, or the error of its first wrong argument."""
        _known("", options, Options.__annotations__)
        placement = Placement(
            name=check_name(name),
            image=_image(options.get("image")),
            command=_words(options.get("command"), "command"),
            args=_words(options.get("args"), "args"),
            env=_env(options.get("env")),
            resources=_resources(options.get("resources")),
            labels=_labels(options.get("labels")),
            annotations=_text_map(options.get("annotations"), "annotations", _KEY),
            volumes=_volumes(options.get("volumes")),
            override=_override(options.get("override")),
            image_pull_policy=_one_of(options.get("image_pull_policy"), "image_pull_policy", _PULL_POLICIES),
            idle_timeout=_seconds(options.get("idle_timeout", 600.0), "idle_timeout"),
            adopt=_flag(options.get("adopt", False), "adopt"),
        )
        provider = options.get("provider")
        return cls(
            placement=placement,
            suspend=_flag(options.get("suspend", False), "suspend"),
            provider=None if provider is None else check_provider(provider),
            on_events=_callback(options.get("on_events"), "on_events"),
            on_metrics=_callback(options.get("on_metrics"), "on_metrics"),
            timeout_s=_seconds(options.get("timeout", DEFAULT_TIMEOUT_S), "timeout"),
            options=dict(options),
        )


def check_name(name: object) -> str:
    """An RFC 1123 label: what Kubernetes takes as the name of a service."""
    if not isinstance(name, str):
        raise WrongKeyword(f"name: {name!r} must be text such as 'my-compute'")
    if len(name) > 63 or not _LABEL.fullmatch(name):
        raise errors.InvalidArgument(
            f"name: {name!r} must be 1 to 63 lower-case letters, digits and '-', not starting or ending with '-'"
        )
    return name


def _known(where: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for word in given:
        if word not in known:
            close = difflib.get_close_matches(str(word), list(known), n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise WrongKeyword(f"{where}{word}: unknown {'key' if where else 'keyword'}{hint}")


def _image(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or re.search(r"\s", value):
        raise errors.InvalidArgument(f"image: {value!r} must be the name of a container image")
    return value


def _words(value: object, field: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(word, str) for word in value):
        raise errors.InvalidArgument(f"{field}: {value!r} must be a list of texts")
    return tuple(value)


def _text_map(value: object, field: str, keys: re.Pattern[str]) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise errors.InvalidArgument(f"{field}: {value!r} must be a dict of texts")
    for key, text in value.items():
        if not isinstance(key, str) or not keys.fullmatch(key):
            raise errors.InvalidArgument(f"{field}: {key!r} is not a valid key")
        if not isinstance(text, str):
            raise errors.InvalidArgument(f"{field}[{key!r}]: {text!r} must be text, for example {str(text)!r}")
    return dict(value)


def _env(value: object) -> dict[str, str]:
    return _text_map(value, "env", _ENV)


def _labels(value: object) -> dict[str, str]:
    labels = _text_map(value, "labels", _KEY)
    for key, text in labels.items():
        if len(text) > 63 or not _LABEL_VALUE.fullmatch(text):
            raise errors.InvalidArgument(
                f"labels[{key!r}]: {text!r} must be at most 63 letters, digits, '-', '_' and '.'"
            )
    return labels


def _resources(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise errors.InvalidArgument(f"resources: {value!r} must be a dict such as {{'cpu': '1', 'memory': '8Gi'}}")
    for key in value:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise errors.InvalidArgument(f"resources: {key!r} is not the name of a resource")
    return {key: check_quantity(amount, f"resources[{key!r}]") for key, amount in value.items()}


def _volumes(value: object) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping | str) or not isinstance(value, Sequence):
        raise errors.InvalidArgument(f"volumes: {value!r} must be a list of dicts")
    return tuple(_volume(volume, f"volumes[{position}]") for position, volume in enumerate(value))


def _volume(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise errors.InvalidArgument(f"{where}: {value!r} must be a dict")
    _known(f"{where}.", value, Volume.__annotations__)
    for key in ("name", "storage", "path"):
        if key not in value:
            raise errors.InvalidArgument(f"{where}.{key}: is missing")
    if not isinstance(value["name"], str) or len(value["name"]) > 63 or not _LABEL.fullmatch(value["name"]):
        raise errors.InvalidArgument(f"{where}.name: {value['name']!r} must be lower-case letters, digits and '-'")
    if not isinstance(value["path"], str) or not value["path"].startswith("/"):
        raise errors.InvalidArgument(f"{where}.path: {value['path']!r} must be an absolute path")
    storage_class = value.get("storage_class")
    if storage_class is not None and not isinstance(storage_class, str):
        raise errors.InvalidArgument(f"{where}.storage_class: {storage_class!r} must be text or None")
    modes = _words(value.get("access_modes", ["ReadWriteOnce"]), f"{where}.access_modes")
    for mode in modes:
        _one_of(mode, f"{where}.access_modes", _ACCESS_MODES)
    return {
        "name": value["name"],
        "storage": check_quantity(value["storage"], f"{where}.storage"),
        "path": value["path"],
        "storage_class": storage_class,
        "access_modes": list(modes),
    }


def _override(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise errors.InvalidArgument(f"override: {value!r} must be a dict that is merged into the pod template")
    return dict(value)


def _one_of(value: object, field: str, known: Sequence[str]) -> str | None:
    if value is not None and value not in known:
        raise errors.InvalidArgument(f"{field}: {value!r} must be one of {', '.join(known)}")
    return value  # type: ignore[return-value]


def _seconds(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise errors.InvalidArgument(f"{field}: {value!r} must be a number of seconds above 0")
    return float(value)


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise errors.InvalidArgument(f"{field}: {value!r} must be True or False")
    return value


def _callback(value: object, field: str) -> Callable[..., Any] | None:
    if value is not None and not callable(value):
        raise errors.InvalidArgument(f"{field}: {value!r} must be a function")
    return value
