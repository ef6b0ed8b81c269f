"""Models of the Hugging Face hub, hf://OWNER/NAME[@REVISION]. Loads no JAX."""

import functools
import importlib.util
import logging
import os
import pathlib
import re
from collections.abc import Sequence

from btsrn_jax.errors import InputError, first_line

HUB = "hf://"
FORM = f"{HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"


def in_hub(source: str | os.PathLike) -> bool:
    """Returns True for the address of a model in the hub."""
    return os.fspath(source).startswith(HUB)


def fetch(source: str, names: Sequence[str]) -> pathlib.Path:
    """Downloads files of a model, and returns their folder in the hub's cache.

    What is there already is not downloaded again. In one process, an address stays the
    revision that it was at first. HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 takes
    the cache alone.

    Args:
      source: the address.
      names: of the files; one that the model lacks is left out.

    Raises:
      InputError: the address has another form, huggingface_hub is not installed, or
        there is no such model or revision.
      ConnectionError: the hub cannot be reached, and the cache does not have it.
    """
    found = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+?)(?:@([^@\s]+))?", os.fspath(source))
    if not found:
        raise InputError(f"{source}: {FORM} was expected")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(f"{source}: the hub needs pip install 'btsrn-jax[hub]'")
    return _fetch(source, *found.groups(), tuple(names), os.environ.get("HF_ENDPOINT"))


@functools.cache
def _fetch(source, name, revision, names, endpoint):
    from huggingface_hub import errors, snapshot_download

    where = endpoint or "the Hugging Face hub"
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each try again
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(names),
            endpoint=endpoint,
            tqdm_class=_bar(),
        )
    except errors.GatedRepoError:
        raise InputError(f"{source}: {where} asks for a login, and for leave") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{source}: {where} does not show such a model") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{source}: there is no revision {revision}") from None
    except errors.HFValidationError as error:
        raise InputError(f"{source}: {first_line(error)}") from None
    except Exception as error:  # of requests or httpx, by the version of the package
        raise ConnectionError(
            f"{source}: cannot download from {where}: {first_line(_cause(error))}"
        ) from None
    return pathlib.Path(folder)


def _bar():
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | {"disable": None})  # unless a terminal

    return Bar


def _cause(error):
    """Returns the first of the errors that led to this one: the last says little."""
    while error.__cause__:
        error = error.__cause__
    return error
