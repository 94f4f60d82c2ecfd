"""The data flows downhill: a file imports only from files that stand above it in this list."""

import ast
from pathlib import Path

import ramify

SOURCE = Path(ramify.__file__).parent

HIGHEST_FIRST = """
errors sealed files shortage seeds yamltext
nn nn.masked nn.trunk nn.cells.base nn.cells.two_layer nn.cells.preactivation nn.cells.plain nn.cells.separable
nn.cells.bottleneck nn.cells.lenet nn.cells nn.zoo
sections config configfile presets rescaling schedule
nn.recording nn.following nn.graph nn.constants nn.branching nn.equilibrium nn.exit nn.widths nn.network nn.survey
nn.resize nn.attached nn.data_form nn.attach nn.backbone
ops ops.schedulers ops.muon ops.surgery ops.freeze ops.average ops.loss ops.cost ops.channels ops.budget ops.trim
ops.convert ops.inherit ops.grow ops.extend ops.widen ops.saliency ops.prune ops.regrow ops.sparse ops.compact
ops.traced ops.rewrite ops.fold
ops.exits ops.exits.sentences ops.exits.policy ops.exits.fit ops.exits.certify ops.exits.thresholds ops.exits.calibrate
ops.exits.analysis ops.exits.measures
data data.names data.listing data.archive data.layout data.table data.decode data.recolor data.store data.pictures
data.gather data.manifest data.duplicates data.split data.fetch data.cache data.formats data.folder
data.digits data.fit data.sources data.augment data.photo data.strong data.cutout data.sizes data.mix data.trigger
run run.memory run.allocator run.distributed run.evaluate run.checkpoint run.choice run.latency run.receipt run.summary
 run.events run.feeding run.folder run.saved run.dealing run.places run.foresight
 run.prepare run.state run.growing run.regrowing run.answers
 run.teacher run.guidance run.record run.step run.train run.calibrate run.classes run.measuring run.readback
search search.goals search.vary search.space search.ancestry search.draw search.halving search.storage search.mend
search.trial search.sampling search.study search.measure search.task search.engine search.coordinator search.sweep
search.front
show show.words show.lines show.live show.analysis show.classes show.tables show.front show.sweep
show.groups show.grouptable
show.scalars show.network_picture show.tensorboard show.wandb show.tracking
show.report show.report.plot show.report.page show.report.parts show.report.pictures show.report.gradcam
show.report.baseline show.report.compare_parts show.report.compare_plots show.report.compare_sections
show.report.compare_static show.report.compare
show.report.facts show.report.outcome show.report.classes
show.report.history show.report.density show.report.effort show.report.exits
show.report.leaving show.report.reliability show.report.thinking show.report.levels show.report.drawing
show.report.setup show.report.single show.report.write
ship ship.needs ship.picture ship.card ship.graphs ship.onnx ship.join ship.runtime ship.check ship.quantize
 ship.size ship.answer ship.predict ship.samples ship.replies ship.guard ship.upload ship.server
 ship.connections ship.serving
ship.export ship.export_table ship.modelcard ship.hub
ship.engines ship.bench ship.bench_table ship.bench_plot ship.bench_files
opened
cli.common cli.report cli.calibrate cli.config cli.data cli.evaluate cli.export cli.info cli.train cli.predict cli.prune
cli.search cli.sweep cli.serve cli.convert cli.bench
cli.app cli
__main__
"""
ORDER = HIGHEST_FIRST.split()
"""Every module, highest first. A new one is added where its idea belongs."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of ramify that a file imports, wherever in the file the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            if node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found.update(name if name.removeprefix("ramify.") in ORDER else node.module for name in names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name.removeprefix("ramify.") for name in found if name.startswith("ramify.")}


def upward_imports(order: list[str], imports: dict[str, set[str]]) -> list[str]:
    """Sentences for imports that do not go from a later module to an earlier one."""
    rank = {name: i for i, name in enumerate(order)}
    return [
        f"{name} imports {other}, which stands below it"
        for name, others in imports.items()
        for other in others
        if rank[other] >= rank[name]
    ]


FILES = {module_name(path): path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"}


def test_every_module_has_its_place() -> None:
    assert sorted(FILES) == sorted(ORDER)


def test_no_import_goes_upward() -> None:
    assert upward_imports(ORDER, {name: imported(path) for name, path in FILES.items()}) == []


def test_an_upward_import_is_found() -> None:
    imports = {name: imported(path) for name, path in FILES.items()}
    imports["nn.network"] = imports["nn.network"] | {"run.train"}
    assert upward_imports(ORDER, imports) == ["nn.network imports run.train, which stands below it"]


def test_the_public_names_exist() -> None:
    for name in ramify.__all__:
        assert getattr(ramify, name) is not None
