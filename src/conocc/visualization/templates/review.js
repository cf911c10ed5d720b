"use strict";

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("data").textContent);
const shorter = (number, digits = 4) => String(Number(number.toPrecision(digits)));
const say = (text) => { $("status").textContent = text; };
const trouble = (text) => { $("trouble").textContent = text; $("trouble").hidden = false; };

// --- verdicts, which the browser keeps -----------------------------------------------------------

const KEPT = `conocc-review-${page.key}`;
let verdicts = {}; // of the id of an image: {verdict, note, time}
const read = () => {
  try {
    verdicts = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
  } catch {
    trouble("This browser keeps nothing of this page: export the verdicts before you close it.");
  }
};
const write = () => {
  try {
    localStorage.setItem(KEPT, JSON.stringify(verdicts));
  } catch {
    trouble("This browser could not keep the verdict: export the verdicts before you close the page.");
  }
};
const keep = (id, change) => {
  read(); // another window may have written
  const one = { verdict: null, note: "", ...verdicts[id], ...change, time: new Date().toISOString() };
  if (page.revision) Object.assign(one, { who: $("who").value, unsent: true });
  verdicts[id] = one;
  write();
  database.then((kept) => kept?.transaction("verdicts", "readwrite").objectStore("verdicts").put(one, id));
};
read();

// Chromium gives a page on a disk an empty storage at times, but always its database.
const database = new Promise((done) => {
  if (location.protocol !== "file:") return done(null);
  try {
    const request = indexedDB.open(KEPT, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("verdicts");
    request.onsuccess = () => done(request.result);
    request.onerror = () => done(null);
  } catch {
    done(null);
  }
});
const restored = database.then((kept) => kept && new Promise((done) => {
  const store = kept.transaction("verdicts").objectStore("verdicts");
  const [ids, found] = [store.getAllKeys(), store.getAll()];
  found.onerror = done;
  found.onsuccess = () => {
    read();
    const newer = ids.result.map((id, i) => [id, found.result[i]]).filter(([id, { time }]) => !(verdicts[id]?.time >= time));
    Object.assign(verdicts, Object.fromEntries(newer));
    if (newer.length) { write(); again(); }
    done();
  };
}));

// --- the worklist: images, and volumes, whose slices are one entry -------------------------------

const before = (a, b) => a.localeCompare(b, undefined, { numeric: true });
const grouped = (images) => {
  const groups = new Map();
  for (const image of images) {
    const own = image.volume ?? image.path;
    const key = image.volume === null ? `image ${image.file}` : `volume ${own}`;
    if (!groups.has(key)) groups.set(key, { path: own, patient: image.patient, label: image.label, images: [] });
    groups.get(key).images.push(image);
  }
  const folders = [...groups.values()].map(({ path }) => path.split("/").slice(0, -1));
  const shared = (folders[0] ?? []).findIndex((part, i) => folders.some((other) => other[i] !== part));
  const cut = shared < 0 ? (folders[0] ?? []).length : shared;
  return [...groups.values()].map((group) => {
    const top = group.images[0]; // they come by their scores
    group.images.sort((a, b) => a.slice - b.slice);
    const parts = group.path.split("/");
    const flags = group.images.filter((image) => image.flagged).length;
    return Object.assign(group, {
      top,
      id: group.images[0].id,
      flags,
      flagged: top.flagged === null ? null : flags > 0,
      name: parts.at(-1),
      folder: parts.slice(cut, -1).join("/"),
      path: group.images.length === 1 ? group.images[0].path : group.path,
    });
  });
};
let entries = [];

const verdictOf = (entry) => verdicts[entry.id]?.verdict ?? null;
// What the keys 1 to 4 say of an entry: in a word, and as a class.
const choices = (entry) => [
  ...(entry.flagged === null
    ? [["minority", "minority"], ["majority", "majority"]]
    : entry.flagged
      ? [["agrees", "minority"], ["false alarm", "majority"]]
      : [["agrees", "majority"], ["missed", "minority"]]),
  ["unusable", "unusable"],
  ["second look", "second look"],
];
const wordOf = (entry) => choices(entry).find(([, verdict]) => verdict === verdictOf(entry))?.[0] ?? "";

const make = (parent, tag, name, text = "") => {
  const element = parent.appendChild(document.createElement(tag));
  element.className = name;
  element.textContent = text;
  return element;
};
const chance = (image) => (image.p === null ? `score ${shorter(image.score)}` : `p ${shorter(image.p, 2)}`);
const itemOf = (entry) => {
  const item = document.createElement("li");
  item.id = `case-${entry.top.file}`;
  item.setAttribute("role", "option");
  const thumbnail = make(item, "img", "");
  Object.assign(thumbnail, { loading: "lazy", decoding: "async" });
  thumbnail.alt = "";
  thumbnail.src = `images/${entry.top.file}.png`;
  const text = make(item, "div", "");
  text.style.minWidth = 0;
  make(text, "div", "name", entry.name).title = entry.path;
  make(text, "div", "where soft").append(make(text, "bdi", "", entry.label || entry.folder || entry.patient));
  const of = make(text, "div", "of", `${chance(entry.top)} `);
  if (entry.flagged) {
    const several = entry.images.length > 1;
    make(of, "span", "flag", several ? `${entry.flags} of ${entry.images.length} slices flagged` : "flagged");
  }
  of.append(" ");
  entry.said = make(of, "span", "said");
  item.addEventListener("click", () => { open(entry); document.body.classList.add("viewing"); fit(); });
  return item;
};

const orders = {
  score: (a, b) => b.top.score - a.top.score,
  calm: (a, b) => a.top.score - b.top.score,
  path: (a, b) => before(a.path, b.path),
  folder: (a, b) => before(a.label || a.folder, b.label || b.folder) || orders.score(a, b),
  patient: (a, b) => before(a.patient, b.patient) || orders.score(a, b),
};
const filters = {
  all: () => true,
  flagged: (entry) => entry.flagged,
  unflagged: (entry) => !entry.flagged,
  open: (entry) => !verdictOf(entry),
  done: (entry) => verdictOf(entry),
};
let visible = [];
const list = () => {
  const wanted = $("search").value.trim().toLowerCase();
  const kind = $("filter").value;
  const passes = filters[kind] ?? ((entry) => verdictOf(entry) === kind);
  entries.sort(orders[$("sort").value]);
  visible = entries.filter(
    (entry) => passes(entry) && `${entry.path}\n${entry.patient}\n${entry.label}`.toLowerCase().includes(wanted),
  );
  $("cases").replaceChildren(...visible.map((entry) => entry.item));
  $("none").hidden = visible.length > 0;
};
const progress = () => {
  const done = entries.filter(verdictOf).length;
  const unit = page.cases.length > entries.length ? "images and volumes" : "images";
  $("progress").textContent = `· ${done} of ${entries.length} ${unit} reviewed`;
  $("counts").textContent = page.counts;
  $("warnings").replaceChildren();
  for (const sentence of page.warnings) make($("warnings"), "p", "warn", sentence);
  $("warning").hidden = done === entries.length;
  $("warning").textContent = `${entries.length - done} of ${entries.length} have no verdict yet. Labels of a part that was chosen by its scores make figures and thresholds wrong: review all, or a part drawn by chance.`;
};
const mark = (entry) => { entry.said.textContent = wordOf(entry); };

// --- one image: loaded when it is looked at, one at a time in memory -----------------------------

let current = null; // the entry that is looked at
let place = 0; // which of its images
let shown = null; // its pixels
let view = { low: 0, high: 1 }; // the window: what is black and what is white
let zoom = null; // pixels of the screen for one of the image; null: fitted
let arrived = null;
window.picture = (drawn) => { arrived = drawn; };

const load = (file) =>
  new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.onload = () => { script.remove(); resolve(arrived); arrived = null; };
    script.onerror = () => { script.remove(); reject(new Error(`images/${file}.js cannot be read.`)); };
    script.src = `images/${file}.js`;
    document.head.append(script);
  });

// Differences along rows, lower bytes before higher ones, become levels.
const unpacked = async (drawn) => {
  const text = atob(drawn.data);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const n = drawn.channels * drawn.h * drawn.w;
  const levels = drawn.bytes === 2 ? new Uint16Array(n) : new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const change = drawn.bytes === 2 ? bytes[i] | (bytes[n + i] << 8) : bytes[i];
    levels[i] = (i % drawn.w ? levels[i - 1] : 0) + change; // wraps as it was subtracted
  }
  return { ...drawn, data: null, levels };
};

let busy = false;
const refresh = async () => {
  if (busy) return;
  busy = true;
  for (let image = current?.images[place]; image && image !== shown?.image; image = current.images[place]) {
    try {
      const drawn = await load(image.file);
      if (drawn?.id !== image.id) throw new Error("This folder was made anew: load the page again.");
      const same = shown && shown.entry === current;
      shown = { ...(await unpacked(drawn)), image, entry: current };
      if (!same) [view.low, view.high] = shown.window;
      draw();
    } catch (error) {
      trouble(error.message);
      break;
    }
  }
  busy = false;
};

const draw = () => {
  const { h, w, levels, channels, low, step, bytes } = shown;
  const canvas = $("canvas");
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(w, h);
  const words = new Uint32Array(pixels.data.buffer);
  const grey = new Uint8ClampedArray(bytes === 2 ? 65536 : 256);
  const scale = 255 / (view.high - view.low);
  for (let i = 0; i < grey.length; i++) grey[i] = (low + step * i - view.low) * scale;
  const n = h * w;
  if (channels === 1) {
    const table = Uint32Array.from(grey, (value) => 0xff000000 | (value * 0x10101));
    for (let i = 0; i < n; i++) words[i] = table[levels[i]];
  } else {
    for (let i = 0; i < n; i++) {
      words[i] = 0xff000000 | (grey[levels[2 * n + i]] << 16) | (grey[levels[n + i]] << 8) | grey[levels[i]];
    }
  }
  context.putImageData(pixels, 0, 0);
  const [left, top, width, height] = shown.place.map((share) => `${100 * share}%`);
  for (const id of ["heat", "again"]) {
    if (shown[id] && $(id).getAttribute("src") !== shown[id]) $(id).src = shown[id];
    Object.assign($(id).style, { left, top, width, height });
  }
  for (const element of document.querySelectorAll(".mapped")) element.hidden = !shown.heat;
  $("rebuilt").parentElement.hidden = !shown.again;
  $("frame").setAttribute("aria-label", `${current.name}, ${w} by ${h} pixels${shown.heat && $("hot").checked ? ", with heat map" : ""}`);
  sliders();
  layers();
  fit();
};
let asked = false;
const redraw = () => {
  if (!asked && shown) requestAnimationFrame(() => { asked = false; draw(); });
  asked = Boolean(shown);
};

const layers = () => {
  $("heat").hidden = !shown?.heat || !$("hot").checked;
  $("heat").style.opacity = $("opacity").value;
  $("again").hidden = !shown?.again || !$("rebuilt").checked;
};
const sliders = () => {
  const { low, high, step } = shown;
  const width = view.high - view.low;
  const level = (view.high + view.low) / 2;
  Object.assign($("width"), { min: step, max: Math.max(high - low, width), step: "any", value: width });
  Object.assign($("level"), { min: Math.min(low, level), max: Math.max(high, level), step: "any", value: level });
  $("width").setAttribute("aria-valuetext", shorter(width));
  $("level").setAttribute("aria-valuetext", shorter(level));
  $("value").textContent = `width ${shorter(width)}, level ${shorter(level)}`;
};
const setWindow = (level, width) => {
  width = Math.max(width, shown.step);
  view = { low: level - width / 2, high: level + width / 2 };
  redraw();
};

const fit = () => {
  if (!shown) return;
  const { clientWidth, clientHeight } = $("stage");
  const scale = zoom ?? Math.min(clientWidth / shown.w, clientHeight / shown.h);
  $("frame").style.width = `${Math.floor(scale * shown.w)}px`;
  $("frame").style.height = `${Math.floor(scale * shown.h)}px`;
};
const setZoom = (value) => { zoom = value && Math.min(32, Math.max(0.05, value)); fit(); };
const zoomed = (factor) => setZoom(($("frame").clientWidth / shown.w) * factor);
new ResizeObserver(fit).observe($("stage"));

const describe = () => {
  const image = current.images[place];
  const said = [...new Set([chance(image), `score ${shorter(image.score)}`])];
  if (image.flagged !== null) said.push(image.flagged ? "flagged" : "not flagged");
  if (current.label) said.push(`class ${current.label}`);
  if (current.patient) said.push(`patient ${current.patient}`);
  if (verdicts[current.id]?.who) said.push(`verdict by ${verdicts[current.id].who}`);
  if (current.images.length > 1) said.push(`slice ${image.slice}, ${place + 1} of ${current.images.length}`);
  $("name").textContent = current.name;
  $("name").title = current.path;
  if (document.activeElement !== $("note")) $("note").value = verdicts[current.id]?.note ?? "";
  $("facts").textContent = said.join(" · ");
  $("sliced").textContent = String(image.slice);
  Object.assign($("slice"), { max: current.images.length - 1, value: place });
  const verdict = verdictOf(current);
  for (const [i, button] of document.querySelectorAll(".verdict button").entries()) {
    const [word, means] = choices(current)[i];
    button.textContent = `${i + 1} ${word}`;
    if (word !== means) make(button, "small", "", means);
    button.setAttribute("aria-pressed", String(verdict === means));
  }
};

const open = (entry, at = null) => {
  current?.item.setAttribute("aria-selected", "false");
  current = entry;
  place = at ?? entry.images.indexOf(entry.top);
  entry.item.setAttribute("aria-selected", "true");
  entry.item.scrollIntoView({ block: "nearest" });
  $("cases").setAttribute("aria-activedescendant", entry.item.id);
  $("rebuilt").checked = false;
  document.querySelector(".slices").hidden = entry.images.length < 2;
  describe();
  say(`${visible.indexOf(entry) + 1} of ${visible.length}: ${entry.name}, ${$("facts").textContent}, ${wordOf(entry) || "no verdict"}`);
  refresh();
};
const go = (by) => {
  const at = visible.indexOf(current);
  const next = visible[at < 0 ? 0 : at + by];
  if (next) open(next);
  else say(by > 0 ? "This is the last one." : "This is the first one.");
};
const turn = (by) => {
  const next = place + by;
  if (next < 0 || next >= current.images.length) return;
  place = next;
  describe();
  say($("facts").textContent);
  refresh();
};
const judge = (key) => {
  keep(current.id, { verdict: choices(current)[key - 1]?.[1] ?? null });
  mark(current);
  describe();
  progress();
  say(wordOf(current) || "no verdict");
};
const toggle = (id) => { $(id).checked = !$(id).checked; layers(); };

// --- keys and mouse ------------------------------------------------------------------------------

const keys = {
  ArrowDown: () => go(1),
  ArrowUp: () => go(-1),
  ArrowRight: () => turn(1),
  ArrowLeft: () => turn(-1),
  PageDown: () => go(10),
  PageUp: () => go(-10),
  " ": () => toggle("hot"),
  r: () => toggle("rebuilt"),
  w: () => $("reset").click(),
  z: () => setZoom(zoom === null ? 1 : null),
  "+": () => zoomed(1.5),
  "-": () => zoomed(1 / 1.5),
  n: () => $("note").focus(),
  "/": () => { document.body.classList.remove("viewing"); $("search").focus(); },
  Escape: () => document.body.classList.remove("viewing"),
};
for (const key of "01234") keys[key] = () => judge(Number(key));
addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writes = target.matches("textarea, input[type=search], select");
  if (writes && key === "Escape") $("cases").focus();
  const slides = target.matches("input[type=range]") && (key.startsWith("Arrow") || key.startsWith("Page"));
  const presses = target.matches("button, summary, input[type=checkbox]") && key === " ";
  const act = keys[key.length === 1 ? key.toLowerCase() : key];
  if (!act || !current || writes || slides || presses) return;
  event.preventDefault();
  act();
});
// What was pressed with the mouse leaves the keys to the image.
document.addEventListener("click", (event) => {
  if (event.detail && event.target.closest("button, input[type=checkbox]")) $("cases").focus({ preventScroll: true });
});
for (const button of document.querySelectorAll(".verdict button")) {
  const pressed = () => button.getAttribute("aria-pressed") === "true";
  button.addEventListener("click", () => judge(pressed() ? 0 : Number(button.dataset.key)));
}
const clicks = {
  previous: () => go(-1),
  next: () => go(1),
  back: () => document.body.classList.remove("viewing"),
  reset: () => { [view.low, view.high] = shown.window; redraw(); },
  fit: () => setZoom(null),
  own: () => setZoom(1),
  larger: () => zoomed(1.5),
  smaller: () => zoomed(1 / 1.5),
};
for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
for (const id of ["hot", "rebuilt", "opacity"]) $(id).addEventListener("input", layers);
for (const id of ["width", "level"]) {
  $(id).addEventListener("input", () => setWindow(Number($("level").value), Number($("width").value)));
}
$("slice").addEventListener("input", () => turn(Number($("slice").value) - place));
$("note").addEventListener("input", () => keep(current.id, { note: $("note").value }));
for (const id of ["search", "filter", "sort"]) $(id).addEventListener("input", list);

let rolled = 0;
$("stage").addEventListener("wheel", (event) => {
  if (!current || current.images.length < 2 || event.ctrlKey) return;
  event.preventDefault();
  rolled += event.deltaMode ? event.deltaY * 40 : event.deltaY;
  if (Math.abs(rolled) >= 40) { turn(Math.sign(rolled)); rolled = 0; }
}, { passive: false });
let dragged = null;
$("frame").addEventListener("pointerdown", (event) => {
  if (!shown || event.pointerType === "touch" || event.button) return;
  $("frame").setPointerCapture(event.pointerId);
  dragged = { x: event.clientX, y: event.clientY, level: (view.high + view.low) / 2, width: view.high - view.low };
});
$("frame").addEventListener("pointermove", (event) => {
  if (!shown) return;
  if (dragged) {
    const wider = 2 ** ((event.clientX - dragged.x) / 120);
    setWindow(dragged.level + ((event.clientY - dragged.y) / 300) * dragged.width, dragged.width * wider);
    return;
  }
  const { w, h, low, step, levels, channels } = shown;
  const box = $("frame").getBoundingClientRect();
  const x = Math.min(w - 1, Math.floor(((event.clientX - box.left) / box.width) * w));
  const y = Math.min(h - 1, Math.floor(((event.clientY - box.top) / box.height) * h));
  const values = Array.from({ length: channels }, (_, c) => shorter(low + step * levels[(c * h + y) * w + x]));
  $("value").textContent = `column ${x}, row ${y}: ${values.join(", ")}`;
});
for (const name of ["pointerup", "pointercancel"]) $("frame").addEventListener(name, () => { dragged = null; });
$("frame").addEventListener("pointerleave", () => { if (shown) sliders(); });

// --- export --------------------------------------------------------------------------------------

const save = (name, kind, text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
const csv = (rows) => rows.map((row) => row.map((cell) => `"${String(cell ?? "").replaceAll('"', '""')}"`).join(",") + "\r\n").join("");
const whole = (path) => (/^([A-Za-z]:)?[\\/]/.test(path) ? path : `${page.folder}/${path}`);
const said = () => entries.filter(({ id }) => verdicts[id]?.verdict || verdicts[id]?.note).sort((a, b) => before(a.path, b.path)).map((entry) => ({
  image: whole(entry.path),
  verdict: verdictOf(entry),
  word: wordOf(entry),
  note: verdicts[entry.id].note,
  time: verdicts[entry.id].time,
  who: verdicts[entry.id].who,
  id: entry.id,
  patient: entry.patient,
  anomaly_score: entry.top.score,
  p_value: entry.top.p,
  flagged: entry.flagged,
}));
const classes = ["majority", "minority"];
$("labels").addEventListener("click", () => {
  const labelled = said().filter(({ verdict }) => classes.includes(verdict));
  save("labels.csv", "text/csv", csv([["path", "label"], ...labelled.map(({ image, verdict }) => [image, verdict])]));
});
$("verdicts").addEventListener("click", () => {
  const rows = said();
  save("verdicts.csv", "text/csv", csv([Object.keys(rows[0] ?? { image: 0, verdict: 0 }), ...rows.map(Object.values)]));
});
$("json").addEventListener("click", () => {
  const { key, run, method, version } = page;
  save("verdicts.json", "application/json", JSON.stringify({ key, run, method, version, verdicts: said() }, null, 2));
});
$("import").addEventListener("change", async () => {
  try {
    const known = new Set(entries.map(({ id }) => id));
    const found = JSON.parse(await $("import").files[0].text()).verdicts.filter(({ id }) => known.has(id));
    for (const { id, verdict, note } of found) keep(id, { verdict, note });
    say(`${found.length} verdicts read.`);
    again();
  } catch {
    trouble("This file holds no verdicts: choose a verdicts.json that such a page wrote.");
  }
});

// --- start, and all that comes later -------------------------------------------------------------

const again = () => {
  for (const entry of entries) mark(entry);
  progress();
  if (current) describe();
};
addEventListener("storage", (event) => { if (event.key === KEPT) { read(); again(); } });
const build = () => {
  entries = grouped(page.cases);
  for (const entry of entries) entry.item = itemOf(entry);
  $("sort").querySelector("[value=patient]").hidden = !entries.some(({ patient }) => patient);
  list();
  again();
  const same = entries.find(({ id }) => id === current?.id);
  if (same) open(same, same.images.length === current.images.length ? place : null);
  else if (visible.length) open(visible[0]);
};
build();

// With a server, which keeps the verdicts of all readers: what it has not got yet is sent again.
const SILENT = "The server does not answer. This browser keeps the verdicts and sends them when it is back.";
const ask = async (path, options) => {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};
let sequence = 0;
const talk = async () => {
  const unsent = Object.entries(verdicts).filter(([, one]) => one.unsent);
  if (unsent.length) {
    const body = JSON.stringify(unsent.map(([id, { verdict, note, who, time }]) => ({ id, verdict, note, who, time })));
    await ask("verdicts", { method: "POST", body });
    read();
    for (const [id, { time }] of unsent) if (verdicts[id].time === time) delete verdicts[id].unsent;
    write();
  }
  const state = await ask(`state?since=${sequence}&revision=${page.revision}`);
  for (const { id, seq, verdict, note, who, time } of state.verdicts) {
    sequence = Math.max(sequence, seq);
    if (!verdicts[id]?.unsent) verdicts[id] = { verdict: verdict || null, note, who, time };
  }
  if (state.verdicts.length) write();
  if (state.page) { Object.assign(page, state.page, { revision: state.revision }); build(); }
  else if (state.verdicts.length) again();
  if (state.trouble) trouble(state.trouble);
  else if ($("trouble").textContent === SILENT) $("trouble").hidden = true;
};
const add = async (files) => {
  for (const file of files) {
    try {
      await ask(`files/${encodeURIComponent(file.name)}`, { method: "PUT", body: file });
      say(`${file.name} is there; if it is an image, it will be scored.`);
    } catch (error) {
      trouble(error instanceof TypeError ? `${file.name} could not be sent: it is too large, or the server is gone.` : error.message);
    }
  }
};
if (page.revision) {
  const remember = () => localStorage.setItem("conocc-reader", $("who").value);
  $("who").value = localStorage.getItem("conocc-reader") ?? "";
  $("who").addEventListener("input", remember);
  $("add").addEventListener("change", () => add([...$("add").files]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });
  const round = async () => {
    try {
      await talk();
    } catch (error) {
      trouble(error instanceof TypeError ? SILENT : error.message);
    }
    setTimeout(round, 1000);
  };
  round();
}
