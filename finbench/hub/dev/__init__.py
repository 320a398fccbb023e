"""A development Hub: the write and read protocol of the Hugging Face Hub, on this machine, standard library and PyYAML.

To rehearse a publication and to test clients; it is no service for others. ``store`` keeps repositories on disk,
``faults`` are the switches that break answers on purpose, ``server`` speaks HTTP.
"""

from typing import TYPE_CHECKING

from finbench.core.faces import face

if TYPE_CHECKING:
    from finbench.hub.dev.server import TOKEN, DevHub
else:
    __getattr__ = face(__name__)

__all__ = ["TOKEN", "DevHub"]
