"""What a deployment that `QueuePolicy` scales answers besides its work: its queues, and the thresholds that it was given."""

import logging
from abc import ABC, abstractmethod

from serve_app.domain import Json
from serve_app.errors import SettingsError
from serve_app.settings.scaling import Scaling, parse_scaling

log = logging.getLogger(__name__)


class Scaled(ABC):
    """Owns the thresholds in force. Serve calls both methods; without a `user_config` the deployment is never scaled by us."""

    _scaling: Scaling | None = None

    @abstractmethod
    def queues(self) -> dict[str, int]:
        """Requests that wait, requests that run, how many can run at a time, and where it is known how many there ever were (`served`)."""

    def reconfigure(self, user_config: Json) -> None:
        """Serve hands over the whole `user_config` anew; a bad one is refused as a whole and the old one stays."""
        try:
            self._scaling = parse_scaling(user_config)
        except SettingsError as error:
            log.error("user_config refused, the old one stays in force: %s", "; ".join(error.problems))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks every replica for these and hands them to the autoscaling policy."""
        queues = self.queues()
        stats = {f"num_requests_{name}": float(queues[name]) for name in ("waiting", "running", "capacity", "served") if name in queues}
        return stats if self._scaling is None else stats | self._scaling.numbers()
