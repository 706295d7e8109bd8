"""A method with a plug-in around its training: `r2gen+isd` is one record composed of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args

from tyro.conf import arg

from rayscribe.config import MethodSettings, RunConfig
from rayscribe.errors import InputError
from rayscribe.methods.method import (
    CardLine,
    Feed,
    Host,
    Inputs,
    Known,
    Method,
    Preparation,
    Source,
    Start,
    TrainedModel,
)
from rayscribe.models.report_model import ReportModel
from rayscribe.settings import to_plain

_H = TypeVar("_H", bound=MethodSettings)
_P = TypeVar("_P", bound=MethodSettings)
PLUS = "+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged(Generic[_H, _P]):
    """Settings of a host and of the plug-in around its training."""

    host: _H
    plug_in: _P

    def check(self, run: RunConfig[Any]) -> None:
        """Checks the host's settings, then the plug-in's. Raises InputError for settings that conflict."""
        host_run(run)
        self.plug_in.check(run)


def host_run(run: RunConfig[Any]) -> RunConfig[Any]:
    """The same run without its last plug-in."""
    return replace(run, system=run.system.rpartition(PLUS)[0], method=run.method.host)


def innermost(settings: MethodSettings) -> MethodSettings:
    """The settings of the method inside all plug-ins."""
    return innermost(settings.host) if isinstance(settings, Plugged) else settings


def plugged(host: Method[Any], plug_in: Method[Any]) -> Method[Any]:
    """The record of `host` trained with `plug_in` around it. Raises InputError if they do not combine."""
    if plug_in.around is None:
        raise InputError(f"{host.name}{PLUS}{plug_in.name}: {plug_in.name} is a method of its own, not a plug-in")
    if plug_in.name in host.name.split(PLUS) or plug_in.name in {one.name for one in fields(host.innermost.settings)}:
        raise InputError(f"{host.name}{PLUS}{plug_in.name}: duplicate {plug_in.name}; name it once")
    if host.fit is not None:
        raise InputError(f"{host.name}{PLUS}{plug_in.name}: {host.name} has no training steps to add losses to")
    if host.is_last:
        swapped = PLUS.join([*host.name.split(PLUS)[:-1], plug_in.name, host.name.split(PLUS)[-1]])
        last = host.name.rpartition(PLUS)[2]
        raise InputError(f"{host.name}{PLUS}{plug_in.name}: {last} must come last; write {swapped}")
    parts = _Parts(host, plug_in)
    return replace(
        host,
        name=f"{host.name}{PLUS}{plug_in.name}",
        settings=Plugged[host.settings, plug_in.settings],  # type: ignore[name-defined]
        recipes={},
        host=host,
        published=[
            replace(one, setting=_within(one.setting, part))
            for part, method in (("host", host), ("plug_in", plug_in))
            for one in method.published
        ],
        stages=lambda run, channels, words, resources: host.stages(host_run(run), channels, words, resources),
        norms=lambda run: host.norms(host_run(run)),
        prompt=lambda run: host.prompt(host_run(run)),
        copy_words=lambda run, model, vectors: host.copy_words(host_run(run), model, vectors),
        task=parts.task,
        is_last=plug_in.is_last,
        generation=parts.generation if host.generation or plug_in.generation else None,
        prepare=parts.prepare,
        inputs=parts.inputs,
        resources=lambda run, folder: host.resources(host_run(run), folder),
        card=parts.card,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    host: Method[Any]
    plug_in: Method[Any]

    def prepare(self, run: RunConfig[Any], source: Source, preparation: Preparation) -> tuple[RunConfig[Any], Source]:
        """The host's part first, then the plug-in's."""
        inner, source = self.host.prepare(host_run(run), source, preparation)
        return self.plug_in.prepare(replace(run, method=replace(run.method, host=inner.method)), source, preparation)

    def inputs(self, run: RunConfig[Any], source: Source) -> Inputs:
        first, second = self.host.inputs(host_run(run), source), self.plug_in.inputs(run, source)

        def known(start: Start) -> Known:
            both = first.known(start), second.known(start)
            return Known(
                value=(both[0].value, both[1].value),
                facts={**both[0].facts, **both[1].facts},
                origins=[*both[0].origins, *both[1].origins],
            )

        return Inputs(
            digests=[*first.digests, *second.digests],
            with_negatives=first.with_negatives or second.with_negatives,
            known=known,
        )

    def task(self, run: RunConfig[Any], model: ReportModel, known: Any, feed: Feed) -> Any:
        inner = host_run(run)
        task = self.host.task(inner, model, known[0], feed)
        assert self.plug_in.around is not None
        host = Host(method=self.host, task=task, known=known[0])
        return self.plug_in.around(inner, run.method.plug_in, host, known[1], feed)

    def generation(self, run: RunConfig[Any], teacher: Path | None) -> RunConfig[Any]:
        if self.plug_in.generation is not None:
            return self.plug_in.generation(run, teacher)
        assert self.host.generation is not None
        inner = self.host.generation(host_run(run), teacher)
        system = f"{inner.system}{PLUS}{self.plug_in.name}"
        return replace(run, system=system, method=replace(run.method, host=inner.method))

    def card(self, trained: TrainedModel) -> list[CardLine]:
        inner = replace(trained, config=host_run(trained.config))
        return [*self.host.card(inner), *self.plug_in.card(trained)]


def _within(setting: str, part: str) -> str:
    """The path of a method's setting when the method is part of a composed one."""
    head, _, rest = setting.partition(".")
    return f"method.{part}.{rest}" if head == "method" else setting


def flat_settings(method: Method[Any]) -> Any:
    """Type of the settings for the command line: the host's are top-level, a plug-in's are under its name."""
    if method.host is None:
        return method.settings
    host, plug_in = flat_settings(method.host), method.name.rpartition(PLUS)[2]
    _, settings = get_args(method.settings)
    return Plugged[Annotated[host, arg(name="")], Annotated[settings, arg(name=plug_in)]]  # type: ignore[valid-type]


def value_at(run: RunConfig[Any], setting: str) -> Any:
    """The value of a setting, by its path as in YAML."""
    part: Any = to_plain(run)
    for step in setting.split("."):
        part = part[step]
    return part


def flag_of(setting: str, system: str, value: Any) -> str:
    """The flag of a setting: `method.plug_in.alpha` of r2gen+ithn is `--method.ithn.alpha VALUE`."""
    plug_ins, shown = system.split(PLUS)[1:], []
    for step in setting.split("."):
        if step == "host":
            plug_ins.pop()
        else:
            shown.append(plug_ins.pop() if step == "plug_in" else step)
    if value is False:
        shown[-1] = f"no-{shown[-1]}"
    flag = "--" + ".".join(shown).replace("_", "-")
    return flag if isinstance(value, bool) else f"{flag} {value}"


def composed(name: str, known: Mapping[str, Method[Any]]) -> Method[Any]:
    """The record of a name joined with +, the host first, from `known` methods. KeyError names an unknown part."""
    first, *plug_ins = name.split(PLUS)
    method = known[first]
    if method.is_plug_in:
        raise InputError(f"{name}: {first} is a plug-in; write METHOD{PLUS}{first}, such as r2gen{PLUS}{first}")
    for plug_in in plug_ins:
        method = plugged(method, known[plug_in])
    return method
