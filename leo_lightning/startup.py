"""What happens before the first import of Lightning."""

from unittest import mock

from lightning_utilities.core import imports

UNUSED = ("matplotlib", "scipy", "torchvision")


def import_torchmetrics() -> None:
    """Import torchmetrics as if `UNUSED` were not installed: it takes half the time.

    It imports them for plots and for metrics of images and sounds, which in this process will say that they
    lack them. Anybody else can still import them.
    """
    check, available = imports.RequirementCache._check_available, imports.package_available

    def check_used(cache: imports.RequirementCache) -> None:
        if cache.requirement in UNUSED:
            cache.available, cache.message = False, f"{cache.requirement} is not used here"
        check(cache)

    def used_available(name: str) -> bool:
        return name not in UNUSED and available(name)

    with (
        mock.patch.object(imports.RequirementCache, "_check_available", check_used),
        mock.patch.object(imports, "package_available", used_available),
    ):
        import torchmetrics  # noqa: F401
