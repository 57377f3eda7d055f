// Compares two faces: the service embeds each, the page shows what it got and takes the dot product.

import { openCamera } from "./camera.js";
import { announce, byId, el } from "./dom.js";
import { loadShape } from "./draw.js";
import { LANGUAGES } from "./requests.js";
import { comparison } from "./comparison.js";
import { Refusal, apiKey, getInfo, setApiKey } from "./service.js";
import { Slot } from "./slot.js";
import { TEXTS, currentLanguage, number, setLanguage, t } from "./texts.js";

const THEMES = ["auto", "light", "dark"];
const EXAMPLES = ["example-1.jpg", "example-2.jpg"];
const ATTRIBUTE_ROLES = [["age_gender", "landmarks_3d"], ["age", "gender"]];
const INFO_RETRY_SECONDS = 3;
const dark = matchMedia("(prefers-color-scheme: dark)");

const state = { info: null, isDown: false, needsKey: false, theme: stored("theme", THEMES, "auto"), program: "curl", copied: "copy" };

const page = {
  shape: null,
  asked: null,
  query,
  changed: render,
  addFiles,
  takePhoto: (slot) => openCamera((picture) => slot.set(picture)),
  noted: (answer) => answer.fingerprint !== state.info?.fingerprint && readInfo(),
};
const slots = [new Slot(0, page), new Slot(1, page)];

// ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────

const isSquare = () => !state.info || state.info.input.width === state.info.input.height;

function chosenAlign() {
  return document.querySelector("input[name=align]:checked").value;
}

/** The query of a request: what other programs would ask for, and what the drawings need. */
function query({ withDrawings = true } = {}) {
  const roles = state.info?.roles ?? [];
  const hasAttributes = ATTRIBUTE_ROLES.some((needed) => needed.every((role) => roles.includes(role)));
  return {
    align: chosenAlign(),
    normalize: "true",
    ...(hasAttributes && { include_attributes: "true" }),
    include_quality: "true",
    ...(withDrawings && { include_landmarks: "true", include_crop: "true" }),
  };
}

function addFiles(files, slot) {
  const [first, second] = files;
  if (!first) return;
  const target = slot ?? slots.find((each) => !each.picture) ?? slots[1];
  target.set(first);
  const other = slots.find((each) => each !== target);
  if (second && (slot || !other.picture)) other.set(second);
}

async function examples() {
  const files = await Promise.all(
    EXAMPLES.map(async (name) => new File([await (await fetch(`page/${name}`)).blob()], name, { type: "image/jpeg" })),
  );
  slots.forEach((slot, place) => slot.set(files[place]));
  slots[0].title.focus(); // the button that had it is gone
}

// ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────

function render() {
  const { info } = state;
  document.documentElement.lang = currentLanguage();
  document.title = `${t("title")} · arcface-api`;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === currentLanguage()));
  }
  const isDark = state.theme === "auto" ? dark.matches : state.theme === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  byId("theme").setAttribute("aria-label", t("theme", { theme: t(`theme_${state.theme}`) }));
  byId("theme").title = byId("theme").getAttribute("aria-label");
  byId("theme").dataset.chosen = state.theme;
  byId("lead").textContent = info ? t("lead", { dim: number(info.embedding_dim) }) : t("leadWaiting");
  byId("examples").hidden = slots.some((slot) => slot.picture);
  byId("doubt").hidden = !info?.doubt;
  if (info?.doubt) byId("doubt").replaceChildren(el("b", {}, t("doubt")), " ", el("span", { lang: "en" }, info.doubt));
  byId("key-form").hidden = !isLocked();
  byId("key-text").textContent = t(apiKey() ? "keyWrong" : "keyText");
  byId("align").disabled = !isSquare();
  if (!isSquare()) document.querySelector("input[name=align][value=none]").checked = true;
  byId("align-hint").textContent = alignHint();
  byId("similarity").hidden = !slots.every((slot) => slot.answer);
  if (!byId("similarity").hidden) comparison(byId("similarity"), slots, info, () => slots.forEach((slot) => slot.send()));
  renderState();
  renderRequest();
  renderFacts();
}

function alignHint() {
  if (!isSquare()) return t("hintOblong");
  if (chosenAlign() === "auto") return t("hintAuto");
  return t(state.info?.crop.align === "none" && state.info?.crop.fit === "stretch" ? "hintNone" : "hintNoneOther");
}

function renderRequest() {
  const names = slots.filter((slot) => slot.picture).map((slot) => slot.picture.name);
  const url = new URL("embed", document.baseURI).href;
  const code = LANGUAGES[state.program](url, query({ withDrawings: false }), names.length ? names : ["face.jpg"], Boolean(apiKey()));
  if (byId("code").textContent !== code) byId("code").textContent = code; // a person may have selected some of it
  for (const tab of byId("tabs").children) {
    const isChosen = tab.dataset.program === state.program;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen) byId("code-panel").setAttribute("aria-labelledby", tab.id);
  }
  byId("copy").textContent = t(state.copied);
}

function renderFacts() {
  const { info } = state;
  byId("facts").closest("section").hidden = !info;
  if (!info) return;
  const recipes = [...new Set(slots.map((slot) => slot.answer?.recipe).filter(Boolean))];
  const facts = [
    ["pack", info.pack],
    ["model", info.model],
    ["numbers", t("numbersValue", { n: number(info.embedding_dim) })],
    ["input", `${info.input.width} × ${info.input.height}`],
    ["provider", info.provider],
    ["precision", info.precision],
    ["fingerprint", info.fingerprint, "code"],
    ["recipe", (recipes.length ? recipes : [info.recipe]).join(", "), "code"],
    ["licence", licence(info.licence)],
    ["version", `arcface-api ${info.version}`],
  ];
  byId("facts").replaceChildren(
    ...facts.map(([name, value, tag]) => el("div", {}, el("dt", {}, t(name)), el("dd", {}, tag ? el(tag, {}, value) : value))),
  );
}

function licence({ name, allows_commercial_use: isCommercial }) {
  return name === "unknown" ? t("unknownLicence") : `${name} · ${t(isCommercial ? "commercial" : "noCommercial")}`;
}

const isLocked = () => state.needsKey || slots.some((slot) => slot.refusal?.status === 401);

function renderState() {
  const isDown = state.isDown || slots.some((slot) => slot.refusal?.kind === "down");
  const name = isDown ? "unreachable" : isLocked() ? "locked" : state.info ? "ready" : "asking";
  const text = name === "ready" ? `${t(name)} · ${state.info.model}` : t(name);
  byId("state").dataset.state = name;
  if (byId("state-text").textContent !== text) byId("state-text").textContent = text; // it is read out
}

// ── the service ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function readInfo() {
  try {
    state.info = await getInfo();
    state.isDown = state.needsKey = false;
  } catch (error) {
    state.needsKey = error instanceof Refusal && error.status === 401;
    state.isDown = !state.needsKey;
    if (state.isDown) setTimeout(readInfo, INFO_RETRY_SECONDS * 1000);
  }
  renderAll();
}

// ── language, colours, the request's text ────────────────────────────────────────────────────────────────────────────

function stored(name, allowed, otherwise) {
  try {
    const value = localStorage.getItem(`arcface-${name}`);
    return allowed.includes(value) ? value : otherwise;
  } catch {
    return otherwise; // a browser may forbid it
  }
}

function store(name, value) {
  try {
    localStorage.setItem(`arcface-${name}`, value);
  } catch {
    // as above: it holds until the page is closed
  }
}

function renderAll() {
  slots.forEach((slot) => slot.render());
  render();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("code").textContent);
    state.copied = "copied";
  } catch {
    getSelection().selectAllChildren(byId("code")); // no clipboard without https:// or localhost
    state.copied = document.execCommand("copy") ? "copied" : "notCopied";
  }
  announce(t(state.copied));
  renderRequest();
  setTimeout(() => {
    state.copied = "copy";
    renderRequest();
  }, 2500);
}

function begin() {
  setLanguage(stored("language", Object.keys(TEXTS), navigator.language.slice(0, 2)));
  byId("faces").append(...slots.map((slot) => slot.element));
  for (const program of Object.keys(LANGUAGES)) {
    byId("tabs").append(
      el("button", { type: "button", role: "tab", id: `tab-${program}`, "data-program": program, "aria-controls": "code-panel",
        onclick: () => choose(program) }, program),
    );
  }
  const choose = (program) => {
    state.program = program;
    renderRequest();
  };
  byId("tabs").addEventListener("keydown", (event) => {
    const names = Object.keys(LANGUAGES);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    choose(names[(names.indexOf(state.program) + step + names.length) % names.length]);
    byId("tabs").querySelector("[aria-selected=true]").focus();
  });
  byId("copy").addEventListener("click", copy);
  byId("examples").addEventListener("click", examples);
  byId("theme").addEventListener("click", () => {
    state.theme = THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length];
    store("theme", state.theme);
    render();
  });
  dark.addEventListener("change", render);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      setLanguage(button.dataset.language);
      store("language", button.dataset.language);
      renderAll();
    });
  }
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    setApiKey(byId("key").value.trim());
    byId("key").value = "";
    await readInfo();
    if (state.needsKey) byId("key").focus();
    else slots.forEach((slot) => slot.send());
  });
  byId("align").addEventListener("change", () => {
    render();
    slots.forEach((slot) => slot.send());
  });
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    const place = event.target.closest?.("[data-slot]")?.dataset.slot;
    addFiles([...event.dataTransfer.files], place === undefined ? undefined : slots[place]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) addFiles(files.map((file) => (file.name === "image.png" ? new File([file], t("pastedName"), { type: file.type }) : file)));
  });
  renderAll();
}

page.asked = Promise.all([readInfo(), loadShape().then((shape) => (page.shape = shape), () => null)]);
begin();
