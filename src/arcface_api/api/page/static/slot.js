// One face: the picture, what the service made of it, or why there is nothing.

import { announce, el, svg } from "./dom.js";
import { landmarkDots, poseHead } from "./draw.js";
import { Refusal, embed } from "./service.js";
import { has, number, t } from "./texts.js";

const QUALITY = [
  ["face_size_px", (value) => t("pixels", { n: number(value) })],
  ["sharpness", (value) => number(value, 2)],
  ["brightness", (value) => number(value, 2)],
  ["contrast", (value) => number(value, 2)],
  ["landmark_confidence", (value) => number(value, 2)],
  ["norm", (value) => number(value, 1)],
];

export class Slot {
  /** `page` has what all slots share: `query()`, `shape`, `asked`, `changed()`, `noted(answer)`, `takePhoto(slot)`, `addFiles(files, slot)`. */
  constructor(place, page) {
    Object.assign(this, { place, page, picture: null, answer: null, refusal: null, attempt: 0 });
    this.input = el("input", { type: "file", accept: "image/jpeg,image/png,image/webp", hidden: true, multiple: place === 0 });
    this.input.addEventListener("change", () => {
      page.addFiles([...this.input.files], this);
      this.input.value = "";
    });
    this.title = el("h2", { id: `slot-${place}`, tabindex: "-1" });
    this.fileName = el("span", { class: "file-name" });
    this.removeButton = el("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.clear() });
    this.body = el("div", { class: "slot-body" });
    this.element = el(
      "article",
      { class: "slot", "aria-labelledby": this.title.id, "data-slot": place },
      el("header", {}, this.title, this.fileName, this.removeButton),
      this.body,
      this.input,
    );
    this.element.addEventListener("dragover", () => this.element.classList.add("over"));
    for (const end of ["dragleave", "drop"]) this.element.addEventListener(end, () => this.element.classList.remove("over"));
  }

  get name() {
    return t(`slot${this.place}`);
  }

  /** Show a picture and embed it. */
  set(picture) {
    this.forget();
    this.picture = picture;
    this.url = URL.createObjectURL(picture);
    const isFocusHere = this.element.contains(document.activeElement);
    this.send();
    if (isFocusHere) this.title.focus(); // the button that had it is gone
  }

  clear() {
    this.forget();
    this.render();
    this.page.changed();
    this.body.querySelector("button")?.focus();
  }

  forget() {
    this.stop();
    if (this.url) URL.revokeObjectURL(this.url);
    Object.assign(this, { picture: null, url: null, answer: null, refusal: null, attempt: 0 });
  }

  stop() {
    this.abort?.abort();
    clearInterval(this.timer);
  }

  /** Send the picture, also again. */
  async send() {
    if (!this.picture) return;
    this.stop();
    this.abort = new AbortController();
    const { signal } = this.abort;
    Object.assign(this, { answer: null, refusal: null });
    this.render();
    this.page.changed();
    if (this.attempt === 0) announce(t("announceSending", { slot: this.name, name: this.picture.name }));
    await this.page.asked; // which options there are
    if (signal.aborted) return;
    try {
      this.answer = await embed(this.picture, this.page.query(), { signal, attempt: this.attempt });
      this.attempt = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refusal)) throw error;
      this.refusal = error;
    }
    if (signal.aborted) return;
    this.render();
    this.say();
    if (this.answer) this.page.noted(this.answer);
    this.page.changed();
    if (this.refusal?.retrySeconds) this.waitAndSend(this.refusal.retrySeconds);
  }

  say() {
    if (this.answer) {
      const { length } = this.answer.warnings ?? [];
      const done = t("announceDone", { slot: this.name, name: this.picture.name });
      announce(length ? `${done} ${t("announceWarnings", { n: length })}` : done);
      return;
    }
    const what = t(this.refusal.kind);
    if (this.refusal.retrySeconds === null) {
      announce(t("announceRefused", { slot: this.name, what, detail: this.refusal.detail ?? "" }));
    } else if (this.attempt === 0) {
      announce(t("announceRetry", { slot: this.name, what, n: this.refusal.retrySeconds }));
    }
  }

  waitAndSend(seconds) {
    this.attempt += 1;
    const end = performance.now() + seconds * 1000;
    const show = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      if (left <= 0) this.send();
      else if (this.countdown) this.countdown.textContent = t("retryIn", { n: left });
    };
    this.timer = setInterval(show, 250);
    show();
  }

  render() {
    this.title.textContent = this.name;
    this.fileName.textContent = this.picture?.name ?? "";
    this.fileName.title = this.picture?.name ?? "";
    this.removeButton.hidden = !this.picture;
    this.removeButton.textContent = t("removeShort");
    this.removeButton.setAttribute("aria-label", t("remove", { name: this.picture?.name ?? "" }));
    this.element.dataset.state = !this.picture ? "empty" : this.answer ? "done" : this.refusal ? "refused" : "sending";
    this.element.setAttribute("aria-busy", String(this.element.dataset.state === "sending"));
    this.countdown = null;
    this.body.replaceChildren(...(this.picture ? this.filled() : this.empty()));
  }

  empty() {
    return [
      el(
        "div",
        { class: "drop" },
        svg("svg", { viewBox: "0 0 32 32", class: "outline", "aria-hidden": "true" }, svg("use", { href: "#mark" })),
        el("p", { class: "drop-title" }, t("drop")),
        el("p", { class: "hint" }, t("dropHint")),
        el(
          "div",
          { class: "actions" },
          el("button", { type: "button", class: "main", onclick: () => this.input.click() }, t("choose")),
          el("button", { type: "button", onclick: () => this.page.takePhoto(this) }, t("take")),
        ),
      ),
    ];
  }

  filled() {
    const { answer, refusal, picture } = this;
    const image = el("img", { src: this.url, alt: picture.name });
    const frame = el("div", { class: "picture" }, image);
    image.addEventListener("error", () => (refusal ? frame.remove() : frame.replaceChildren(el("p", { class: "hint" }, t("unseenPicture")))));
    if (answer?.landmarks) {
      const unsure = answer.warnings?.includes("landmarks_unsure");
      image.addEventListener("load", () => {
        const dots = landmarkDots(answer.landmarks, image.naturalWidth, image.naturalHeight);
        if (unsure) dots.classList.add("unsure");
        frame.append(dots);
      });
    }
    if (refusal) return [frame, this.explained(refusal)];
    if (!answer) return [frame, el("div", { class: "aside" }, el("div", { class: "waiting" }, el("span", { class: "spinner" }), t("sending")))];
    return [frame, this.seen(answer), this.warned(answer), this.measured(answer)];
  }

  seen(answer) {
    const size = answer.input_size.replace("x", " × ");
    const crop = el("img", {
      class: "crop",
      src: `data:image/png;base64,${answer.crop}`,
      alt: t("seenAlt", { name: this.picture.name, size }),
    });
    const { attributes } = answer;
    return el(
      "div",
      { class: "aside" },
      el(
        "figure",
        {},
        el("figcaption", {}, t("seen")),
        crop,
        el("p", { class: "fine" }, `${size} · ${t(`alignment_${answer.alignment}`)}`),
      ),
      attributes
        ? el(
            "figure",
            {},
            el("figcaption", {}, t("pose")),
            this.page.shape && poseHead(this.page.shape, attributes.pose),
            el("p", { class: "fine angles" }, ["yaw", "pitch", "roll"].map((name) => el("span", {}, `${t(name)} ${number(attributes.pose[name])}°`))),
          )
        : el("p", { class: "fine" }, t("noAttributes")),
    );
  }

  measured(answer) {
    const values = [];
    if (answer.attributes) {
      values.push([t("age"), number(answer.attributes.age)], [t("gender"), t(answer.attributes.gender)]);
    }
    for (const [name, shown] of QUALITY) {
      if (answer.quality?.[name] !== undefined) values.push([t(name), shown(answer.quality[name])]);
    }
    if (answer.totalMs) values.push([t("time"), t("ms", { n: number(answer.totalMs, answer.totalMs < 10 ? 1 : 0) })]);
    return el("dl", { class: "values" }, values.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  warned(answer) {
    const warnings = answer.warnings ?? [];
    if (!warnings.length) return el("p", { class: "fine good" }, t("noWarnings"));
    return el(
      "ul",
      { class: "warnings", "aria-label": t("warnings") },
      warnings.map((code) =>
        el("li", {}, el("b", {}, has(code) ? t(code) : code), " ", t(has(code) ? `${code}_text` : "unknownWarning")),
      ),
    );
  }

  /** The service's own words, and what can be done. */
  explained({ kind, status, code, detail, retrySeconds }) {
    const isAutomatic = retrySeconds !== null;
    this.countdown = isAutomatic ? el("span", { "aria-hidden": "true" }) : null;
    const words = detail
      ? el("p", { lang: "en", class: "detail" }, detail)
      : el("p", {}, kind === "down" ? t("downText") : t("noWords", { status }));
    return el(
      "div",
      { class: `aside note ${isAutomatic ? "warn" : "bad"}` },
      el("h3", {}, t(kind)),
      words,
      kind === "busy" && el("p", {}, t("busyText")),
      code && el("p", { class: "fine" }, el("code", {}, `${status} ${code}`)),
      el(
        "div",
        { class: "actions" },
        isAutomatic || kind === "failed"
          ? el("button", { type: "button", onclick: () => this.retryNow() }, t(isAutomatic ? "retryNow" : "again"))
          : el("button", { type: "button", onclick: () => this.input.click() }, t("chooseOther")),
        this.countdown,
      ),
    );
  }

  retryNow() {
    this.title.focus(); // the button is about to go
    this.send();
  }
}
