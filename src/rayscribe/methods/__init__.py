"""The published methods: one paper, one file, one row of this table.

Other packages register theirs through the entry point group `rayscribe.methods`: a method's name, and the path of its `Method`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rayscribe.errors import InputError, unknown_name
from rayscribe.settings import from_plain, to_plain

if TYPE_CHECKING:
    from rayscribe.config import RunConfig
    from rayscribe.methods.method import Method, Published

GROUP = "rayscribe.methods"


@cache
def own_methods() -> dict[str, Method[Any]]:
    """Our methods by name. Imports inside, so that --help needs no torch."""
    from rayscribe.methods import baseline, consensus, distill, ithn, jima, kif_isd, promptmrg, r2gen, r2gen_cmn

    modules = (baseline, r2gen, r2gen_cmn, jima, promptmrg, kif_isd, consensus, ithn, distill)
    return {module.METHOD.name: module.METHOD for module in modules}


def methods() -> dict[str, Method[Any]]:
    """All methods by name: ours, and those of other packages that load."""
    return own_methods() | _entered()[0]


def broken_methods() -> dict[str, str]:
    """Methods of other packages that fail to load, by name, with the reason."""
    return _entered()[1]


def find_method(system: str) -> Method[Any]:
    """The record of a system such as `r2gen` or `r2gen_cmn+ithn`. Raises InputError that suggests the nearest name.

    Loads other packages only if a part of the name is not ours.
    """
    from rayscribe.methods.compose import PLUS

    parts = system.split(PLUS)
    known = _enough(parts)
    for part in parts:
        if part not in known:
            raise InputError(broken_methods().get(part) or unknown_name("method", part, known))
    return _composed(system)


def find_recipe(name: str) -> RunConfig[Any]:
    """Published settings by name; for an unpublished combination, the host's recipe and the plug-ins' defaults.

    Raises InputError that suggests the nearest name.
    """
    from rayscribe.methods.compose import PLUS, Plugged

    host, *around = name.split(PLUS)
    known = _recipes(own_methods())
    if host not in known or not own_methods().keys() >= set(around):
        known = recipes()
    if name in known:
        return known[name]()
    if host not in known:
        if host in broken_methods():
            raise InputError(broken_methods()[host])
        if host in methods():
            find_method(name)  # raises if a plug-in comes first
            raise InputError(f"the method {host} has no recipe; its package must define one named {host}")
        raise InputError(unknown_name("recipe", host, known))
    run = known[host]()
    for plug_in in around:
        system = f"{run.system}{PLUS}{plug_in}"
        find_method(system)  # raises for parts that do not combine
        record = _enough([plug_in])[plug_in]
        settings = record.defaults(run) if record.defaults else record.settings()
        run = replace(run, system=system, method=Plugged(host=run.method, plug_in=settings))
    return run


def recipes() -> dict[str, Callable[[], RunConfig[Any]]]:
    """All published settings by name. Raises InputError if two methods have a recipe of the same name."""
    return _recipes(methods())


def _recipes(known: Mapping[str, Method[Any]]) -> dict[str, Callable[[], RunConfig[Any]]]:
    found: dict[str, Callable[[], RunConfig[Any]]] = {}
    for method in known.values():
        for name, function in method.recipes.items():
            if name in found:
                raise InputError(f"{method.name}: duplicate recipe {name!r}; rename it")
            found[name] = function
    return found


def plug_ins() -> list[str]:
    """Names of the methods that plug into another method's training."""
    return [name for name, method in methods().items() if method.is_plug_in]


def taught_systems(system: str) -> list[str]:
    """The system with each plug-in that learns from an earlier run, in an order that works; empty if there is none."""
    from rayscribe.methods.compose import PLUS

    host, *around = system.split(PLUS)
    found = []
    for name in plug_ins():
        if methods()[name].generation is not None:
            try:
                found.append(find_method(PLUS.join([host, name, *around])).name)
            except InputError:  # a method that takes no plug-in
                continue
    return found


def as_published(run: RunConfig[Any]) -> tuple[RunConfig[Any], list[Published]]:
    """The run with the paper's choices where our defaults differ, and the settings that changed."""
    from rayscribe.config import RunConfig

    method, plain = find_method(run.system), to_plain(run)
    for one in method.published:
        *path, name = one.setting.split(".")
        part = plain
        for step in path:
            part = part[step]
        if name not in part:
            raise InputError(f"{method.name}: has no setting {one.setting} (--as-published)")
        part[name] = one.value
    kind: Any = RunConfig[method.settings]  # type: ignore[name-defined]
    return from_plain(kind, plain), list(method.published)


def run_from_plain(plain: Mapping[str, Any]) -> RunConfig[Any]:
    """A run's settings from the output of `to_plain`, also that of version 0.3. Raises TypeError, KeyError or InputError."""
    from rayscribe.config import RunConfig
    from rayscribe.methods.version_0_3 import upgraded

    today = upgraded(plain)
    system = str(today["system"])
    try:
        method = find_method(system)
    except InputError as error:
        raise InputError(f"{error}; the package that provides it may not be installed") from error
    kind: Any = RunConfig[method.settings]  # type: ignore[name-defined]
    run: RunConfig[Any] = from_plain(kind, today)
    return run


def run_from_yaml(text: str, source: Path | str) -> RunConfig[Any]:
    """A run's settings from a run folder's config.yaml. Raises InputError that names `source`."""
    try:
        return run_from_plain(yaml.safe_load(text))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{source}: not a rayscribe configuration ({error})") from error


def recipe_with(setting: str) -> str:
    """A recipe of the first method with a setting of this name, to show how to use the file that the setting reads."""
    users = [method for method in own_methods().values() if setting in _names(method.settings)]
    return next(name for method in users for name in method.recipes)


def _names(settings: type[Any]) -> set[str]:
    found: set[str] = set()
    for one in fields(settings):
        found |= {one.name}
        if is_dataclass(one.default_factory):
            found |= _names(one.default_factory)
    return found


@cache
def _composed(system: str) -> Method[Any]:
    from rayscribe.methods.compose import PLUS, composed

    return composed(system, _enough(system.split(PLUS)))


def _enough(names: Iterable[str]) -> dict[str, Method[Any]]:
    """Ours if they include all of these names, so that a broken package cannot affect them; otherwise all."""
    own = own_methods()
    return own if set(names) <= own.keys() else methods()


@cache
def _entered() -> tuple[dict[str, Method[Any]], dict[str, str]]:
    """The methods of other packages by name, and the errors of those that do not load."""
    loaded: dict[str, Method[Any]] = {}
    broken: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in own_methods() or entry.name in loaded:
            broken[entry.name] = (
                f"{_package(entry)}: registers a method named {entry.name!r}, which already exists; rename it"
            )
            continue
        try:
            loaded[entry.name] = _loaded(entry)
        except (ImportError, AttributeError, SyntaxError, NameError, TypeError, ValueError) as error:
            broken[entry.name] = (
                f"{_package(entry)}: cannot load its method {entry.name!r} ({error}); fix or uninstall the package"
            )
    return loaded, broken


def _loaded(entry: EntryPoint) -> Method[Any]:
    from rayscribe.methods.method import Method

    method = entry.load()
    if not isinstance(method, Method):
        raise TypeError(f"{entry.value} is not a Method")
    if method.name != entry.name:
        raise TypeError(f"{entry.value} is the method {method.name!r}")
    return method


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
