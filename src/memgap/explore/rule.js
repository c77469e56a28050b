// The advisor's rule as the page asks it: what memgap/advisor/bca.py and stability.py decide, number for number.
// No function here touches the page, so that tests run them without a browser.
"use strict";

const general = (value) => String(Number(value.toPrecision(6)));
const percent = (share) => `${Math.round(100 * share)}%`;

function usable(profile) {
  return profile.filter((one) => !one.excluded && one.throughput_tok_s && one.latency_ms !== null);
}

// The bound in ms and how it came about; `slo` is {ms} or {multiple, times_latency_at}.
function sloBound(profile, slo) {
  if (slo.ms !== undefined) return [slo.ms, `${general(slo.ms)} ms`];
  const wanted = slo.times_latency_at ?? 32;
  const far = (one) => Math.max(one.batch_cap / wanted, wanted / one.batch_cap);
  const nearest = usable(profile).reduce((best, one) => (far(one) < far(best) ? one : best));
  const other = nearest.batch_cap === wanted ? "" : `, the measured cap nearest to ${wanted}`;
  const at = `${general(slo.multiple)} x the latency at cap ${nearest.batch_cap}`;
  return [slo.multiple * nearest.latency_ms, `${at} (${nearest.latency_ms.toFixed(2)} ms)${other}`];
}

// B_opt of a profile in ascending order of its caps, the bound, and each cap's gain and what keeps it out.
function advise(profile, slo, epsilon) {
  const able = usable(profile);
  const out = (one) => ({ ...one, gain: null, kind: "excluded", reason: one.excluded || "no throughput was measured" });
  if (!able.length) {
    const reasons = profile.map((one) => `cap ${one.batch_cap}: ${one.excluded || "no throughput"}`).join("; ");
    const sentence = `No cap can be judged (${reasons || "none measured"}).`;
    return { b_opt: null, slo_ms: null, source: "", candidates: profile.map(out), sentence };
  }
  const base = able[0].throughput_tok_s / able[0].batch_cap;
  const [bound, source] = sloBound(able, slo);
  const judge = (one) => {
    const gain = one.throughput_tok_s / (one.batch_cap * base);
    const late = one.latency_ms > bound;
    const little = gain <= epsilon;
    const reasons = [];
    if (late) reasons.push(`latency ${one.latency_ms.toFixed(1)} ms is above ${bound.toFixed(1)} ms`);
    if (little) reasons.push(`gain ${gain.toFixed(3)} is not above ${general(epsilon)}`);
    return { ...one, gain, kind: late ? "late" : little ? "little" : "fits", reason: reasons.join("; ") };
  };
  const candidates = profile.map((one) => (able.includes(one) ? judge(one) : out(one)));
  let best = null;
  for (const one of candidates)
    if (one.kind === "fits" && (best === null || one.throughput_tok_s > best.throughput_tok_s)) best = one;
  const decision = { b_opt: best && best.batch_cap, best, slo_ms: bound, source, candidates };
  if (best === null) return { ...decision, sentence: whyNothing(candidates, bound, epsilon) };
  const share = best.throughput_tok_s / Math.max(...able.map((one) => one.throughput_tok_s));
  const sentence =
    `Run with a batch cap of ${best.batch_cap}: ${best.throughput_tok_s.toFixed(0)} tok/s, ${percent(share)} of the ` +
    `highest measured throughput, at ${best.latency_ms.toFixed(1)} ms (bound ${bound.toFixed(1)} ms).`;
  return { ...decision, share, sentence };
}

function whyNothing(candidates, bound, epsilon) {
  const judged = candidates.filter((one) => one.gain !== null);
  const inTime = judged.filter((one) => one.latency_ms <= bound);
  if (!inTime.length) {
    const fastest = judged.reduce((best, one) => (one.latency_ms < best.latency_ms ? one : best));
    const least = fastest.latency_ms.toFixed(1);
    return (
      `No cap meets the latency bound of ${bound.toFixed(1)} ms: the lowest latency is ${least} ms ` +
      `at cap ${fastest.batch_cap}; an SLO of at least ${least} ms would admit it.`
    );
  }
  const best = inTime.reduce((most, one) => (one.gain > most.gain ? one : most));
  return (
    `No cap within ${bound.toFixed(1)} ms gains more than epsilon = ${general(epsilon)}: the best is ` +
    `${best.gain.toFixed(3)} at cap ${best.batch_cap}; an epsilon below that would admit it.`
  );
}

// A column of draws: base 64 of 32-bit little-endian floats. Without atob, which an engine outside a browser lacks.
function floats(text) {
  const signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const bytes = new Uint8Array(Math.floor((text.replace(/=+$/, "").length * 3) / 4));
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const sign of text.replace(/=+$/, "")) {
    bits = ((bits << 6) | signs.indexOf(sign)) & 0xffff;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes[at++] = (bits >> held) & 0xff;
    }
  }
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

// How often the draws decide as the measured profile does; null where no interval is known. `draws`: floats by cap.
function stability(profile, draws, slo, epsilon) {
  const caps = Object.keys(draws);
  const columns = caps.flatMap((cap) => draws[cap]).filter((column) => column !== null);
  if (!columns.length) return null;
  const measured = advise(profile, slo, epsilon).b_opt;
  const count = columns[0].length;
  const chosen = new Map();
  for (let i = 0; i < count; i++) {
    const drawn = usable(profile).map((one) => {
      const [throughput, latency] = draws[one.batch_cap];
      return {
        batch_cap: one.batch_cap,
        throughput_tok_s: throughput === null ? one.throughput_tok_s : throughput[i],
        latency_ms: latency === null ? one.latency_ms : latency[i],
      };
    });
    const { b_opt } = advise(drawn, slo, epsilon);
    chosen.set(b_opt, (chosen.get(b_opt) ?? 0) + 1);
  }
  const others = [...chosen].filter(([cap]) => cap !== measured).sort((a, b) => b[1] - a[1]);
  return { same_fraction: (chosen.get(measured) ?? 0) / count, draws: count, others };
}

// USD for a million output tokens of one server on its GPUs; null without a price.
function usdPerMillion(outputTokSPerGpu, usdPerGpuHour) {
  return usdPerGpuHour > 0 && outputTokSPerGpu > 0 ? (usdPerGpuHour / 3600 / outputTokSPerGpu) * 1e6 : null;
}

// All that the page says of one model at a bound.
function answer(model, latency, slo, epsilon, usdPerGpuHour) {
  const decision = advise(model.profiles[latency], slo, epsilon);
  const cap = decision.b_opt === null ? null : model.caps[decision.b_opt];
  return {
    ...decision,
    memory: cap && cap.memory,
    command: cap && cap.command,
    usd: cap && usdPerMillion(cap.output_tok_s_per_gpu, usdPerGpuHour),
  };
}
