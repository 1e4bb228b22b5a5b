"""Commands about what is kept on this machine and what ships: `cache`, `weights`, `data`, `bases`, `recipes`."""

from pathlib import Path

import click

from kerastk import recipes


@click.group()
def cache() -> None:
    """What frozen networks made of photos, kept for the next run."""


folder = click.option("--folder", type=click.Path(path_type=Path), help="A folder given as --cache to other commands.")


@cache.command(name="info")
@folder
def cache_info(folder: Path | None) -> None:
    """List what is kept, the one used last first."""
    import time

    from kerastk.training.store import default_folder, entries

    root = folder or default_folder()
    found = entries(root)
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        shape = " x ".join(map(str, entry.described["shape"]))
        view = f"view {entry.described['view']}" if "view" in entry.described else "plain"
        click.echo(
            f"{used}  {entry.size / 1e6:9,.1f} MB  {entry.described.get('base')}  {shape} {entry.described['dtype']}  "
            f"{view}"
        )
    click.echo(f"{sum(entry.size for entry in found) / 1e6:,.1f} MB in {len(found)} stores in {root}")


@cache.command(name="clear")
@folder
def cache_clear(folder: Path | None) -> None:
    """Delete all that no running process uses."""
    from kerastk.training.store import default_folder, entries, trim

    root = folder or default_folder()
    freed = trim(root, 0)
    left = len(entries(root))
    click.echo(f"{freed / 1e6:,.1f} MB freed" + (f"; {left} stores are in use" if left else ""))


@click.group()
def weights() -> None:
    """Pretrained weights: what is here, fetch, verify."""


@weights.command(name="list")
def weights_list() -> None:
    """List the files of all bases, and where those lie that are here."""
    from kerastk.networks.bases import BASES
    from kerastk.networks.weights import local

    for name, base in BASES.items():
        click.echo(f"{name:26s} {base.file}  {local(base) or '-'}")


@weights.command(name="fetch")
@click.argument("base")
def weights_fetch(base: str) -> None:
    """Have the weights of BASE in Keras's cache, verified."""
    from kerastk.networks.bases import BASES, find
    from kerastk.networks.weights import imagenet

    click.echo(imagenet(BASES[find(base)]))


@weights.command(name="verify")
@click.argument("base", required=False)
def weights_verify(base: str | None) -> None:
    """Compare the files that are here (or that of BASE) with Keras's hashes, or with those of their first use."""
    from kerastk.errors import WeightsError
    from kerastk.networks.bases import BASES, find
    from kerastk.networks.weights import local, verify

    wanted = [find(base)] if base else list(BASES)
    here = [(name, path) for name in wanted if (path := local(BASES[name])) is not None]
    if base and not here:
        raise WeightsError(f"no weights of {base} are here; `kerastk weights fetch {base}` gets them.")
    bad = 0
    for name, path in here:
        try:
            click.echo(f"{name:26s} {path}  {verify(BASES[name], path)}")
        except WeightsError as error:
            bad += 1
            click.echo(f"{name:26s} {error}", err=True)
    if bad:
        raise WeightsError(f"{bad} of {len(here)} files are damaged.")
    if not here:
        click.echo("no weights are here yet")


@click.group()
def data() -> None:
    """Public data sets: what there is, what is here, fetch.

    NAME is kerastk:NAME as DATA of other commands, which fetch it, too.
    """


@data.command(name="list")
def data_list() -> None:
    """List the public data sets: items, size, licence, and where those lie that are here."""
    from kerastk.datasets import public

    rows = [("name", "items", "MB", "licence", "where")]
    for name in public.names():
        each = public.find(name)
        items = " + ".join(f"{count:,} {split}" for split, count in each.items.items())
        # Of several folders the one that holds the most of it.
        folder = max(each.folders, key=lambda folder: len(each.here(folder)))
        here, of = len(each.here(folder)), len(each.files)
        where = "-" if not here else str(each.path(folder)) if here == of else f"{here} of {of} files in {folder}"
        rows.append((name, items, f"{each.bytes / 1e6:,.1f}", each.licence, where))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@data.command(name="fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def data_fetch(names: tuple[str, ...]) -> None:
    """Have the data sets on this machine, verified; print where they lie."""
    from kerastk import shipped
    from kerastk.datasets import public

    # All names are looked at before the first is fetched.
    for each in [public.find(name.removeprefix(shipped.PREFIX)) for name in names]:
        click.echo(public.fetch(each))


@click.command()
def bases() -> None:
    """List the pretrained networks with their input sizes."""
    from kerastk.networks.bases import BASES

    for name, base in BASES.items():
        ships = "  ships with kerastk" if base.ships else ""
        click.echo(f"{name:26s} {base.family:18s} {base.image_size} px{ships}")


@click.command(name="recipes")
def list_recipes() -> None:
    """List the shipped recipes."""
    names = recipes.shipped_names()
    width = max(map(len, names))
    for name in names:
        # The head of a recipe: its command, an empty line, then what it is in a line.
        lines = (recipes.folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        click.echo(f"{name:{width}s}  {lines[2].removeprefix('# ')}")
