// The page's controls and what they show. All decisions are made in rule.js.
"use strict";

const STUDY = JSON.parse(document.getElementById("numbers").textContent);
const LATENCY = STUDY.rule.latency;
const EPSILON = STUDY.rule.epsilon;
const STEPS = 400;
// colours that are told apart with any colour vision, each with a shape of its own
const KINDS = {
  fits: { said: "keeps both bounds", colour: "#0072B2", shape: "circle" },
  late: { said: "above the latency bound", colour: "#D55E00", shape: "triangle-up" },
  little: { said: "gains too little", colour: "#AA4499", shape: "square" },
  excluded: { said: "no candidate", colour: "#595959", shape: "cross" },
};
const find = (id) => document.getElementById(id);
const draws = new Map();
let view = null;
let asked = 0;
let slo = null; // null: as configured, else a bound in ms

for (const model of STUDY.models) {
  const columns = Object.entries(model.draws);
  draws.set(model, Object.fromEntries(columns.map(([cap, two]) => [cap, two.map((one) => one && floats(one))])));
}

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const fill = (id, ...children) => find(id).replaceChildren(...children);
const digits = (value, count) => (value === null || value === undefined ? "unknown" : Number(value.toPrecision(count)).toLocaleString("en"));
const gb = (bytes) => (bytes === null || bytes === undefined ? "unknown" : `${digits(bytes / 1e9, 3)} GB`);
const usd = (value) => (value === null || value === undefined ? "no price" : `${digits(value, 3)} USD`);

function options(id, entries, chosen) {
  fill(id, ...entries.map(([value, text]) => make("option", text, { value })));
  if (entries.some(([value]) => value === chosen)) find(id).value = chosen;
}

const current = () => STUDY.models[Number(find("model").value)];
const sloOf = () => (slo === null ? STUDY.rule.slo : { ms: slo });

const priceOf = (model) => (model.gpu === current().gpu ? Number(find("usd").value) || null : model.usd_per_gpu_hour);

function ask(model) {
  const latency = find("latency").value;
  const profile = model.profiles[latency] ?? [];
  const found = answer({ ...model, profiles: { [latency]: profile } }, latency, sloOf(), EPSILON, priceOf(model));
  const sure = latency === LATENCY && profile.length ? stability(profile, draws.get(model), sloOf(), EPSILON) : null;
  return { ...found, sure };
}

// The range of bounds: from half the lowest latency to a little above the highest one and above what is configured.
function range() {
  const profile = current().profiles[find("latency").value] ?? [];
  const known = profile.map((one) => one.latency_ms).filter((one) => one > 0);
  if (!known.length) return [1, 100];
  return [Math.min(...known) / 2, 1.1 * Math.max(...known, advise(profile, STUDY.rule.slo, EPSILON).slo_ms ?? 0)];
}

function toSlider(ms) {
  const [low, high] = range();
  return Math.round((STEPS * Math.log(ms / low)) / Math.log(high / low));
}

function fromSlider(step) {
  const [low, high] = range();
  return Number((low * (high / low) ** (step / STEPS)).toPrecision(3));
}

function surely(sure) {
  if (find("latency").value !== LATENCY) return "not drawn for this latency";
  if (sure === null) return "no interval is known";
  const others = sure.others.map(([cap, count]) => `${cap ?? "none"} in ${digits((100 * count) / sure.draws, 3)} %`);
  return others.length ? `of ${sure.draws} draws; else cap ${others.join(", ")}` : `of ${sure.draws} draws`;
}

function cards(found) {
  const { best, memory, sure } = found;
  const card = (id, name, value, note) => {
    const box = make("div");
    const dd = make("dd", undefined, { id });
    dd.append(value, make("small", note ?? ""));
    box.append(make("dt", name), dd);
    return box;
  };
  const freed = memory ? `of ${gb(memory.kv_pool_bytes)} of KV cache` : "";
  const share = memory && memory.fraction !== null ? `each ${memory.fraction.toFixed(3)} of the GPU` : "not known on this machine";
  fill(
    "cards",
    card("b_opt", "Advised batch cap", best ? String(best.batch_cap) : "none", `bend: ${current().bend ?? "not seen"}`),
    card("throughput", "Throughput", best ? `${digits(best.throughput_tok_s, 4)} tok/s` : "none", best ? `${percent(found.share)} of the highest` : ""),
    card("at", "Latency there", best ? `${digits(best.latency_ms, 3)} ms` : "none", found.slo_ms === null ? "" : `bound ${digits(found.slo_ms, 4)} ms`),
    card("freed", "Freed memory", memory ? gb(memory.kv_freed_bytes) : "none", freed),
    card("replicas", "Replicas that fit", memory ? String(memory.replicas ?? "unknown") : "none", memory ? share : ""),
    card("cost", "Per million output tokens", best ? usd(found.usd) : "none", "one server on its GPU"),
    card("sure", "How sure", sure ? `${digits(100 * sure.same_fraction, 3)} %` : "unknown", surely(sure)),
  );
}

function cells(row, texts) {
  for (const [text, number] of texts) row.append(make("td", text, number ? { class: "number" } : {}));
  return row;
}

function head(names) {
  const row = make("tr");
  for (const [name, number] of names) row.append(make("th", name, { scope: "col", class: number ? "number" : "" }));
  const all = make("thead");
  all.append(row);
  return all;
}

function capsTable(found) {
  const body = make("tbody");
  for (const one of found.candidates) {
    const row = make("tr", undefined, one.batch_cap === found.b_opt ? { class: "chosen" } : {});
    const first = make("td");
    const button = make("button", `cap ${one.batch_cap}`, { type: "button", "data-cap": one.batch_cap });
    button.addEventListener("click", () => show(current().points.filter((point) => point.cap === one.batch_cap)));
    first.append(button);
    row.append(first);
    const memory = current().caps[one.batch_cap]?.memory;
    cells(row, [
      [digits(one.throughput_tok_s, 4), true],
      [digits(one.latency_ms, 3), true],
      [one.gain === null ? "" : one.gain.toFixed(3), true],
      [memory ? gb(memory.kv_freed_bytes) : "", true],
      [one.batch_cap === found.b_opt ? "advised" : one.reason || "keeps both bounds", false],
    ]);
    body.append(row);
  }
  const names = [["Cap"], ["tok/s", true], ["latency, ms", true], ["gain", true], ["freed", true], ["verdict of the rule"]];
  fill("caps", head(names), body);
}

function modelsTable() {
  const body = make("tbody");
  for (const [index, model] of STUDY.models.entries()) {
    const found = answer(model, find("latency").value in model.profiles ? find("latency").value : LATENCY, sloOf(), EPSILON, priceOf(model));
    const row = make("tr", undefined, model === current() ? { class: "chosen" } : {});
    const first = make("td");
    const button = make("button", named(model), { type: "button", "data-model": index });
    button.addEventListener("click", () => choose(index));
    first.append(button);
    row.append(first);
    const { best, memory } = found;
    cells(row, [
      [model.gpu, false],
      [best ? String(best.batch_cap) : "none", true],
      [digits(found.slo_ms, 4), true],
      [best ? digits(best.throughput_tok_s, 4) : "none", true],
      [memory ? gb(memory.kv_freed_bytes) : "none", true],
      [memory ? String(memory.replicas ?? "unknown") : "none", true],
      [best ? usd(found.usd) : "none", true],
    ]);
    body.append(row);
  }
  const names = [["Model"], ["GPU"], ["cap", true], ["bound, ms", true], ["tok/s", true], ["freed", true], ["replicas", true], ["per M output tokens", true]];
  fill("models", head(names), body);
}

const named = (model) => (STUDY.models.filter((one) => one.model === model.model).length > 1 ? `${model.model} (${model.sweep})` : model.model);

// One or more points with verdict, settings and command line.
function show(points) {
  fill(
    "point",
    ...points.map((point) => {
      const box = make("article");
      const judged = [point.verdict ?? point.status, point.verdict_reasons, point.error_message].filter(Boolean).join(": ");
      box.append(make("strong", `Cap ${point.cap}, repeat ${point.settings.repeat ?? 0}: ${point.use}`));
      const list = make("dl");
      const facts = { verdict: judged, "limited by": point.limit, flags: point.flags, ...point.settings };
      for (const [name, value] of Object.entries(point.values)) facts[STUDY.metrics[name]] = digits(value, 5);
      for (const [name, value] of Object.entries(facts))
        if (value !== null && value !== undefined && value !== "") list.append(make("dt", name.replaceAll("_", " ")), make("dd", String(value)));
      box.append(make("pre", point.command), list);
      return box;
    }),
  );
}

// What is drawn: points with the verdict of the rule on their cap, means, the twin, the bound and the advised cap.
function drawn(found) {
  const metric = find("metric").value;
  const kinds = new Map(found.candidates.map((one) => [one.batch_cap, one.kind]));
  const points = current().points.map((point, index) => ({ point, index, value: point.values[metric] }));
  const shown = points.filter(({ value, point }) => value !== undefined && point.cap !== null);
  return {
    points: shown.map(({ point, index, value }) => {
      const kind = point.use === "good" ? kinds.get(point.cap) : "excluded";
      const said = `cap ${point.cap}, ${digits(value, 4)}, ${KINDS[kind].said}, ${point.use}`;
      return { cap: point.cap, value, kind: KINDS[kind].said, index, said };
    }),
    means: current().means[metric] ?? [],
    twin: current().twin[metric] ?? [],
    bound: metric === find("latency").value && found.slo_ms !== null ? [{ value: found.slo_ms }] : [],
    chosen: found.b_opt === null ? [] : [{ cap: found.b_opt }],
  };
}

function specification(data) {
  const caps = [...new Set(current().profiles[LATENCY].map((one) => one.batch_cap))];
  const known = Object.values(KINDS);
  const looks = (name) => ({ field: "kind", scale: { domain: known.map((one) => one.said), range: known.map((one) => one[name]) } });
  const legend = { orient: "bottom", columns: find("chart").clientWidth < 600 ? 1 : 4, title: null, labelLimit: 300 };
  const x = { field: "cap", type: "quantitative", scale: { type: "log", base: 2, nice: false, padding: 12 }, title: "Batch cap", axis: { values: caps, labelOverlap: true, format: "d" } };
  const y = { field: "value", type: "quantitative", title: null };
  const band = { y: { ...y, field: "low" }, y2: { field: "high" } };
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: { text: STUDY.metrics[find("metric").value], anchor: "start", fontSize: 14 },
    width: "container",
    height: 340,
    autosize: { type: "fit", contains: "padding" },
    datasets: data,
    encoding: { x },
    layer: [
      { data: { name: "twin" }, mark: { type: "area", color: "#009E73", opacity: 0.25, aria: false }, encoding: band },
      { data: { name: "twin" }, mark: { type: "line", color: "#00664B", strokeDash: [6, 3], aria: false }, encoding: { y } },
      { data: { name: "twin" }, mark: { type: "point", color: "#00664B", size: 60, aria: false }, encoding: { y: { ...y, field: "measured" } } },
      { data: { name: "means" }, mark: { type: "line", color: "#595959", aria: false }, encoding: { y } },
      { data: { name: "means" }, mark: { type: "rule", color: "#595959", aria: false }, encoding: band, transform: [{ filter: "isValid(datum.low)" }] },
      { data: { name: "bound" }, mark: { type: "rule", color: "#D55E00", strokeDash: [4, 4], strokeWidth: 2, aria: false }, encoding: { x: null, y } },
      { data: { name: "chosen" }, mark: { type: "rule", color: "#0072B2", strokeWidth: 2, aria: false }, encoding: { x } },
      {
        data: { name: "points" },
        mark: { type: "point", filled: true, size: 90, opacity: 0.9, cursor: "pointer" },
        encoding: { y, color: { ...looks("colour"), legend, type: "nominal" }, shape: { ...looks("shape"), legend, type: "nominal" }, description: { field: "said" } },
      },
    ],
    config: { font: "system-ui, sans-serif", axis: { labelFontSize: 13, titleFontSize: 13, labelColor: "#1b1b1b" }, legend: { labelFontSize: 13 }, view: { stroke: null } },
  };
}

// Each point can be reached and read with the keyboard.
function reachable() {
  for (const mark of find("chart").querySelectorAll("[aria-roledescription=point]")) {
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "button");
  }
}

const pointed = (item) => item?.datum?.index !== undefined && show([current().points[item.datum.index]]);

async function chart(found) {
  const mine = ++asked;
  const data = drawn(found);
  explained(data);
  const made = await vegaEmbed("#chart", specification(data), { renderer: "svg", actions: false, tooltip: false, logLevel: 1 });
  if (mine !== asked) return made.finalize();
  view?.finalize();
  view = made;
  for (const event of ["mouseover", "click"]) made.view.addEventListener(event, (_, item) => pointed(item));
  reachable();
  document.body.dataset.drawn = String(mine);
}

// What the lines are, in words.
function explained({ twin, bound, chosen }) {
  const lines = [
    "Grey line and bars: means with 95 % intervals",
    chosen.length ? "blue line: the advised cap" : "",
    bound.length ? "dashed orange line: the bound" : "",
    twin.length ? "green: what the twin predicts of whole windows, with its 90 % interval; hollow green: what was measured over the whole window" : "",
  ];
  find("legend").textContent = `${lines.filter(Boolean).join("; ")}.`;
}

async function moved(found) {
  if (view === null) return chart(found);
  const data = drawn(found);
  explained(data);
  for (const name of ["points", "bound", "chosen"]) view.view.data(name, data[name]);
  await view.view.runAsync();
  reachable();
}

function update(redraw) {
  const found = ask(current());
  find("configured").setAttribute("aria-pressed", String(slo === null));
  find("bound").textContent = found.slo_ms === null ? "none" : `${digits(found.slo_ms, 4)} ms (${found.source})`;
  if (found.slo_ms !== null) {
    find("slo").value = toSlider(found.slo_ms);
    find("slo").setAttribute("aria-valuetext", `${digits(found.slo_ms, 4)} ms`);
    if (document.activeElement !== find("ms")) find("ms").value = Number(found.slo_ms.toPrecision(4));
  }
  find("sentence").textContent = found.sentence;
  find("command").textContent = found.command ?? "nothing is advised";
  cards(found);
  capsTable(found);
  modelsTable();
  return redraw ? chart(found) : moved(found);
}

function priced() {
  find("usd").value = current().usd_per_gpu_hour ?? "";
}

function choose(index) {
  const { gpu } = STUDY.models[index];
  const other = gpu !== find("gpu").value;
  find("gpu").value = gpu;
  offer(String(index));
  if (other) priced();
  return update(true);
}

// The models of the chosen GPU, and what was measured of the chosen one.
function offer(model) {
  const entries = [...STUDY.models.entries()].filter(([, one]) => one.gpu === find("gpu").value);
  options("model", entries.map(([index, one]) => [String(index), named(one)]), model);
  const latencies = Object.keys(current().profiles).map((name) => [name, STUDY.metrics[name]]);
  options("latency", latencies, find("latency").value || LATENCY);
  const metrics = Object.entries(STUDY.metrics).filter(([name]) => name in current().means);
  options("metric", metrics, find("metric").value || "total_throughput_tok_s");
}

options("gpu", [...new Set(STUDY.models.map((one) => one.gpu))].map((name) => [name, name]));
offer();
priced();
find("chart").addEventListener("focusin", (event) => pointed(event.target.__data__));
find("gpu").addEventListener("change", () => (offer(), priced(), update(true)));
find("model").addEventListener("change", () => (offer(find("model").value), update(true)));
find("latency").addEventListener("change", () => ((slo = null), update(true)));
find("metric").addEventListener("change", () => update(true));
find("slo").addEventListener("input", () => ((slo = fromSlider(Number(find("slo").value))), update(false)));
find("ms").addEventListener("input", () => Number(find("ms").value) > 0 && ((slo = Number(find("ms").value)), update(false)));
find("configured").addEventListener("click", () => ((slo = null), update(false)));
find("usd").addEventListener("input", () => update(false));
update(true);
