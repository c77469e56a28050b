"""Endpoints: a load on a server that is there already, named by its URL. Nothing is started, stopped or set.

Prompts are words or texts, since a server's tokenizer is not known: how many tokens they are is what the server counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memgap import HARNESS_VERSION
from memgap.engine.given import GivenFlags
from memgap.engine.identity import UNKNOWN
from memgap.errors import UserError
from memgap.kinds.kind import Expanded, Kind, Listed
from memgap.kinds.online.point import load_record
from memgap.points.point import Point, Record, server_key
from memgap.points.resolve import Resolver, check_enough_prompts, dataset_record

if TYPE_CHECKING:
    from memgap.session.measuring import Measuring

TEXT_KINDS = ("sharegpt",)
"""Datasets that a tokenizer makes prompts of."""
_WORDS = """
able acid also area army away baby back ball band bank base bath bear beat bell belt bill bird blow blue boat body
bone book born both bowl call calm came camp card care case cash cast cell chat chip city club coal coat code cold
come cook cool cope copy core cost crew crop dark data date dawn days dead deal dean dear debt deep deny desk dial
diet disk door dose down draw drew drop drug dual duke dust duty each earn ease east easy edge else even ever evil
exit face fact fail fair fall farm fast fate fear feed feel feet fell felt file fill film find fine fire firm fish
five flat flow food foot form fort four free from fuel full fund gain game gate gave gear gene gift girl give glad
goal goes gold golf gone good gray grew grey grow gulf hair half hall hand hang hard harm hate have head hear heat
held help here hero high hill hire hold hole holy home hope host hour huge hunt hurt idea inch into iron item join
jump jury just keep kept kick kind king knee knew know lack lady laid lake land lane last late lead left less life
lift like line link list live load loan lock logo long look lord lose loss lost love luck made mail main make male
many mark mass meal mean meat meet menu mile milk mind mine miss mode mood moon more most move much must name near
neck need news next nice nine none nose note okay once only onto open oral over pace pack page paid pain pair palm
park part pass past path peak pick pink pipe plan play plot plug plus poll pool poor port post pull pure push race
rail rain rank rare rate read real rear rely rent rest rice rich ride ring rise risk road rock role roll roof room
root rose rule rush safe said sail salt same sand save seat seed seek seem seen self sell send sent ship shop show
side sign site size skin slip slow snow soft soil sold sole some song soon sort soul spot star stay step stop such
suit sure take tale talk tall tank tape task team tech tell tend term test than that them then they thin this thus
till time tiny told toll tone took tool tour town tree trip true tune turn twin type unit upon used user vary vast
very vice view vote wage wait wake walk wall want warm wash wave ways weak wear week well went were west what when
whom wide wife wild will wind wine wing wire wise wish with wood word wore work yard yeah year your zero zone
"""
WORDS = tuple(_WORDS.split())
"""Common short words, most of which are one token for most tokenizers."""


class Endpoints(Kind):
    """Somebody's server. Its points depend on its URL, the model's name and what the user says of its version."""

    name = "endpoint"
    section = "endpoints"
    noun = "endpoint"
    serves = False
    elsewhere = True

    def expand(self, resolver: Resolver) -> Iterator[Expanded]:
        """See Kind."""
        for name, experiment, arguments, where in resolver.arguments(self.section, ("dataset",)):
            settings = resolver.config[self.section][name]
            url = checked_url(arguments.get("url") or resolver.config["url"], settings["hosts"], where)
            engine = resolver.engine(arguments, where)
            declared = resolver.config["engines"][engine["name"]]["version"]
            engine = {**engine, "version": UNKNOWN if declared == "auto" else declared}
            server = {"url": url, "model": arguments.get("model"), "key_variable": settings["key_variable"]}
            for repeat in range(arguments.get("repeats", 1)):
                record = self._record(resolver, arguments, engine, server, repeat, where)
                yield name, experiment, Point.of(record, self.session_name(record))

    def _record(
        self, resolver: Resolver, arguments: Record, engine: Record, server: Record, repeat: int, where: str
    ) -> Record:
        model = {
            "name": server["model"] or UNKNOWN,
            "weights": "elsewhere",
            "dtype": None,
            "architecture": {"vocabulary_size": len(WORDS)},
        }
        entry = resolver.dataset_entry(arguments["dataset"], where)
        if entry["kind"] in TEXT_KINDS:
            raise UserError(
                f"{where}: a dataset of kind {entry['kind']} needs the model's tokenizer, which a server that is there "
                "already does not give; use another kind."
            )
        dataset = dataset_record(arguments["dataset"], entry, model, GivenFlags(engine["adapter"], {}, where))
        asked = {"endpoint": "chat", "ignore_eos": False, **arguments.get("load", {})}
        closed = asked.get("arrival", "closed") == "closed"
        if closed and "batch_cap" not in arguments:
            raise UserError(f"{where}: a closed loop needs `batch_cap`, the number of requests in flight.")
        cap = int(arguments.get("batch_cap", 1))
        record: Record = {
            "harness": HARNESS_VERSION,
            "kind": self.name,
            "engine": engine,
            "model": model,
            "server": {"args": {}, "env": {}, "replicas": 1, "mps": False, **server},
            "dataset": dataset,
            "load": load_record(asked, "client" if closed else "server", cap, 1, int(dataset["requests"]), where),
            "batch_cap": cap,
            "cap_side": "client",
            "repeat": repeat,
        }
        check_enough_prompts(record, where)
        return record

    def session_name(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        return f"endpoint-{record['engine']['name']}-{server_key(record)}"

    def label(self, record: Mapping[str, Any]) -> str:
        """See Kind."""
        rate = record["load"]["rate_req_s"]
        how = f"cap {record['batch_cap']}" if rate is None else f"{rate:g} requests/s"
        repeat = f", repeat {record['repeat'] + 1}" if record["repeat"] else ""
        return f"{record['server']['url']}, {how}, {self.size(record)}{repeat}"

    def listed(self, record: Mapping[str, Any]) -> Listed:
        """See Kind."""
        return replace(super().listed(record), side=self.name)

    def measuring(self) -> "Measuring[Any]":
        """See Kind."""
        import numpy as np

        from memgap.datasets.build import warmup_prompts
        from memgap.datasets.files import load_dataset
        from memgap.host.remote import Remote
        from memgap.kinds.online.measure import MEASURING
        from memgap.load.records import Prompt
        from memgap.session.measuring import PointRun
        from memgap.session.phases import Load, ResetCaches, Window, load_plan

        def in_words(run: PointRun[Any]) -> Load:
            load = run.record["load"]
            stored = load_dataset(run.place.datasets / f"{run.record['dataset']['key']}.npz")
            measured = stored.prompts[: load["requests"]]
            warmup = warmup_prompts(stored.spec, n=load["warmup_requests"], like=measured)
            prompts, warming = (
                [
                    Prompt(one.output_tokens, None, one.text or words_of(one.token_ids), one.conversation, one.group)
                    for one in some
                ]
                for some in (measured, warmup)
            )
            plan = replace(load_plan(run), model=run.host.served_model, extensions=False)
            due_s = [one.due_s for one in measured] if load["arrival"] == "trace" else None
            return Load(plan, prompts, warming, None if due_s is None else np.array(due_s, dtype=np.float64))

        phases = (ResetCaches(), Window(load=in_words))
        return replace(MEASURING, host=Remote, phases=phases, label=self.label, work=self.work, probe=None)

    def shown(self, group: str) -> Mapping[str, list[str]]:
        """See Kind."""
        return {"figures": [f"figures/{group}.endpoint.pdf"], "numbers": [f"results/tables/{group}.endpoint.csv"]}


def words_of(token_ids: Any) -> str:
    """Return a prompt of as many words as there are ids."""
    return " ".join(WORDS[int(one) % len(WORDS)] for one in token_ids)


def checked_url(url: str | None, hosts: list[str], where: str) -> str:
    """Return the base URL, without /v1 and slash at its end. Raises UserError for one that is none, that holds a name
    and password, or whose host is another machine's and not among `hosts`.
    """
    if not url:
        raise UserError(f"{where}: no server is named; give `--config url=http://127.0.0.1:8000`, or `url` in `fixed`.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UserError(f"{where}: the address {url!r} is not of the form http://host:port/prefix or https://....")
    if parts.username is not None:
        raise UserError(f"{where}: the address holds a name or password, and it is recorded; use `key_variable`.")
    if not _is_loopback(host) and host not in hosts:
        raise UserError(
            f"{where}: {host} is not this machine, and a load is sent on purpose only: name it in `hosts: [{host}]`."
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path.removesuffix('/v1')}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


ENDPOINT = Endpoints()
