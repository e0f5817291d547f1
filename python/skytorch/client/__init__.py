"""What users import: Computes and Clusters, the decorator, settings, events, metrics and the exceptions.

It is the control plane: it starts servers, connects to them and takes them away again. Tensors never pass through it.
Importing it costs no more than the standard library: torch, rich and the native modules load on first use.
"""

from skytorch.client._cluster import Cluster
from skytorch.client._compute import Compute
from skytorch.client._decorator import compute
from skytorch.client._events import log_event
from skytorch.client._init import init
from skytorch.client._metrics import Metric, MetricsSnapshot
from skytorch.errors import *  # noqa: F403
from skytorch.errors import __all__ as _errors

__all__ = ["Cluster", "Compute", "Metric", "MetricsSnapshot", "compute", "init", "log_event"]
__all__ += _errors
