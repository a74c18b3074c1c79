"""API keys: records with limits, from the environment and a file that may change while it is used. Only digests are kept.

The file is a YAML list, so that the lines of `tierwise new-key` can be appended to it.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from serve_app.domain import Client, Tier
from serve_app.errors import SettingsError
from serve_app.explain import nearest
from serve_app.settings import Auth, Fraction, PositiveInt, Strict
from serve_app.validation.document import BAD_VALUES, Loader

log = logging.getLogger(__name__)
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_KEYS = 10_000
DIGEST = "sha256:"
OTHERS_READ = 0o004


TierName = Literal["small", "large"]


def _both_tiers() -> list[TierName]:
    return ["small", "large"]


class Key(Strict):
    """One key's public name, its digest and its limits; None is no limit of its own."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    admin: bool = False
    tiers: list[TierName] = Field(default_factory=_both_tiers, min_length=1)
    threshold: Fraction | None = None
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    monthly_budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_tokens: PositiveInt | None = None
    max_messages: PositiveInt | None = None
    max_body_bytes: PositiveInt | None = None

    def client(self) -> Client:
        return Client(self.id, self.admin, tuple(tier for tier in Tier if tier.value in self.tiers), self.threshold)


_FILE: TypeAdapter[list[Key]] = TypeAdapter(list[Key])


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that a file has changed."""

    modified_ns: int
    size: int
    inode: int
    mode: int


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A random key: 256 bits, so that its bare digest cannot be guessed."""
    return f"tw-{secrets.token_urlsafe(32)}"


def yaml_lines(key_id: str, key: str, *, admin: bool) -> str:
    """The lines of the keys file for a new key. Raises `SettingsError` for an id that the file may not hold."""
    try:
        made = Key(id=key_id, sha256=digest(key), admin=admin)
    except ValidationError:
        raise SettingsError(["ID: letters, digits, '.', '_' and '-', 64 at most, the first a letter or digit"]) from None
    return yaml.safe_dump([made.model_dump(include={"id", "sha256"} | ({"admin"} if admin else set()))], sort_keys=False)


class KeyRing:
    """Owns the keys in force. A file that cannot be used leaves the old ones in force; `problem` then says why."""

    def __init__(self, auth: Auth, environ: Mapping[str, str]) -> None:
        """Raises `SettingsError` when a key cannot be used, or when there is none at all."""
        self._fixed = [*_from_environment(auth.keys_env, environ), *_from_environment(auth.admin_keys_env, environ, admin=True)]
        self._file = Path(auth.keys_file) if auth.keys_file is not None else None
        self._stamp: Stamp | None = None
        self._keys: tuple[tuple[bytes, Key], ...] = ()
        self.problem: str | None = None
        self.refused = 0  # contents of the file that were not taken over
        self._use(self._fixed)
        if self._file is not None:
            self._stamp, keys = _read(self._file)
            self._use([*self._fixed, *keys])
        if not self._keys:
            raise SettingsError([f"args.auth.keys_env: the environment variable {auth.keys_env} holds no keys, and there is no other"])

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Iterator[Key]:
        return (key for _, key in self._keys)

    def find(self, given: str) -> Key | None:
        """The key whose secret was given. Every digest is compared, each in constant time: the time tells nothing of any."""
        wanted = bytes.fromhex(digest(given))
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, wanted):
                found = key
        return found

    async def refresh(self) -> None:
        """Take over a changed file. Never raises: a bad one is told once, and the old keys stay."""
        if self._file is None:
            return
        try:
            seen, self._stamp = self._stamp, None  # one that is away is read anew when it is back
            self._stamp = await asyncio.to_thread(_stamp, self._file)
            if seen == self._stamp:  # also where its content is bad: that was told
                return
            self._stamp, keys = await asyncio.to_thread(_read, self._file)
            self._use([*self._fixed, *keys])
        except SettingsError as error:
            self._refuse("; ".join(error.problems[:3]))
            return
        self.problem = None
        log.info("%d keys are in force", len(self._keys))

    def _use(self, keys: Iterable[Key]) -> None:
        keys = list(keys)
        for name, values in (("id", [key.id for key in keys]), ("digest", [key.sha256 for key in keys])):
            if len(set(values)) < len(values):
                often = Counter(values)
                twice = sorted({key.id for key, value in zip(keys, values, strict=True) if often[value] > 1})
                raise SettingsError([f"args.auth: two keys have the same {name}: {', '.join(twice)}"])
        self._keys = tuple((bytes.fromhex(key.sha256), key) for key in keys)

    def _refuse(self, problem: str) -> None:
        if problem != self.problem:
            self.refused += 1
            log.error("the keys file was refused, the old keys stay in force: %s", problem)
        self.problem = problem


def _from_environment(name: str, environ: Mapping[str, str], *, admin: bool = False) -> list[Key]:
    keys = []
    for number, item in enumerate(part.strip() for part in environ.get(name, "").split(",")):
        if not item:
            continue
        value = item.removeprefix(DIGEST).lower() if item.startswith(DIGEST) else digest(item)
        try:
            keys.append(Key(id=f"env-{digest(f'tierwise key id {value}')[:12]}", sha256=value, admin=admin))
        except ValidationError:  # its text would hold the value
            raise SettingsError([f"{name}: item {number + 1} is not sha256: and 64 hexadecimal digits"]) from None
    return keys


def _stamp(file: Path) -> Stamp:
    try:
        stat = file.stat()
    except OSError as error:
        raise SettingsError([f"args.auth.keys_file: {file}: {error.strerror or type(error).__name__}"]) from None
    return Stamp(stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode)


def _read(file: Path) -> tuple[Stamp, list[Key]]:
    """The stamp is taken first: what changes while it is read is seen by the next look."""
    stamp = _stamp(file)
    if stamp.size > MAX_FILE_BYTES:
        raise SettingsError([f"args.auth.keys_file: {file}: larger than {MAX_FILE_BYTES} bytes"])
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:  # its text would quote the file
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise SettingsError([f"args.auth.keys_file: {file}{where}: invalid YAML"]) from None
    except (OSError, RecursionError, *BAD_VALUES) as error:
        raise SettingsError([f"args.auth.keys_file: {file}: cannot be read ({type(error).__name__})"]) from None
    if stamp.mode & OTHERS_READ:
        log.warning("the keys file %s is readable by everyone on its machine: chmod o-r", file)
    return stamp, _parse(file, [] if data is None else data)


def _parse(file: Path, data: Any) -> list[Key]:
    if not isinstance(data, list) or len(data) > MAX_KEYS:
        raise SettingsError([f"args.auth.keys_file: {file}: must be a list of at most {MAX_KEYS} keys"])
    try:
        return _FILE.validate_python(data)
    except ValidationError as error:
        raise SettingsError([f"args.auth.keys_file: {file}: {_sentence(item)}" for item in error.errors(include_input=False)]) from None


def _sentence(item: Any) -> str:
    """One problem by its path. No value is repeated, and no name that is not ours: either may be a key in the wrong place."""
    index, *path = [str(part) for part in item["loc"]]
    where = ".".join([f"keys.{index}", *(part for part in path if part in Key.model_fields)])
    if item["type"] == "extra_forbidden":
        hint = nearest(path[-1], sorted(Key.model_fields))
        return f"{where}: an unknown field{hint if 'did you mean' in hint else ''}"
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}"
