"use strict";

const at = (id) => document.getElementById(id);
const show = (element, shown) => { element.hidden = !shown; };
const fill = (id) => at(id).content.firstElementChild.cloneNode(true);
const share = (part) => {
  // "100.0 %" is kept for certainty, "0.0 %" for nothing.
  const percent = 100 * part;
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  if (percent < 0.1 && percent > 0) return "< 0.1 %";
  return `${percent.toFixed(1)} %`;
};
const whole = (part) => `${Math.round(100 * part)} %`;
const big = (number) => {
  if (number >= 1e9) return `${(number / 1e9).toFixed(1)} G`;
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)} M`;
  return number >= 1e4 ? `${(number / 1e3).toFixed(1)} k` : number.toLocaleString("en");
};

let model = null;
let asked = null; // what ends the question under way
let givenAddress = null;

function sentenceOf(answer) {
  const time = `${answer.milliseconds < 10 ? answer.milliseconds.toFixed(1) : Math.round(answer.milliseconds)} ms`;
  if (answer.exit === answer.exits) {
    const where = answer.exits === 1 ? "at its only exit" : `at the last exit, ${answer.exit} of ${answer.exits}`;
    return [`answered ${where}, with all of the work, ${time}`, "", ""];
  }
  const work = answer.macs / answer.macs_last;
  return [`answered at exit ${answer.exit} of ${answer.exits}, ${whole(work)} of the work, `,
    `${whole(answer.saved)} saved`, `, ${time}`];
}

function ruleOf(exit, index) {
  if (index === model.exits.length - 1) return "answers whatever comes this far";
  if (exit.threshold === null) return "lets no picture leave";
  return `leaves at ${share(exit.threshold)} or more`;
}

function cards(answer) {
  const list = at("exits");
  list.classList.toggle("idle", answer === null);
  while (list.children.length < model.exits.length) list.append(fill("card"));
  model.exits.forEach((exit, index) => {
    const card = list.children[index];
    const put = (selector, text) => { card.querySelector(selector).textContent = text; };
    put("h3", `Exit ${exit.exit}`);
    put(".work", `${whole(exit.share)} of the work, ${big(exit.macs)} MACs`);
    put(".rule", ruleOf(exit, index));
    const mark = card.querySelector(".mark-at");
    show(mark, exit.threshold !== null);
    mark.style.setProperty("--at", `${100 * (exit.threshold ?? 0)}%`);
    const opinion = answer === null ? null : answer.opinions[index];
    const state = answer === null ? "" : exit.exit < answer.exit ? "passed" : exit.exit === answer.exit ? "left" : "after";
    card.className = `exit ${state}`;
    put(".mood", { "": "", passed: "not sure enough", left: "answered here", after: "would have said" }[state]);
    if (state === "passed" && exit.threshold === null) put(".mood", "went on");
    if (opinion === null) return;
    put(".opinion .class", opinion.class);
    put(".opinion .sure", `${share(opinion.confidence)} sure`);
    card.querySelector(".meter .fill").style.setProperty("--value", `${100 * opinion.confidence}%`);
    const top = card.querySelector(".top");
    const chances = opinion.top.slice(0, 3);
    while (top.children.length < chances.length) top.append(fill("chance"));
    chances.forEach((chance, place) => {
      const row = top.children[place];
      row.querySelector(".class").textContent = chance.class;
      row.querySelector(".class").title = chance.class;
      row.querySelector(".sure").textContent = share(chance.probability);
      row.querySelector(".fill").style.setProperty("--value", `${100 * chance.probability}%`);
    });
  });
}

function rest() {
  at("verdict").classList.add("idle");
  at("said").textContent = "What do the exits say?";
  at("sentence").textContent =
    "A picture goes through the stages one by one and leaves at the first exit that is sure enough.";
  if (model !== null) cards(null);
}

function showAnswer(answer, label) {
  at("verdict").classList.remove("idle");
  at("said").textContent = answer.class;
  const [before, bold, after] = sentenceOf(answer);
  const strong = document.createElement("b");
  strong.textContent = bold;
  at("sentence").replaceChildren(before, strong, after);
  at("seen").src = answer.picture.seen;
  at("seen-size").textContent = `${model.input_shape[2]} \u00d7 ${model.input_shape[1]}, as it sees it`;
  at("given-size").textContent = `${answer.picture.width} \u00d7 ${answer.picture.height}, as given`;
  show(at("pictures"), true);
  const notes = [];
  if (label !== null) notes.push(`labelled ${label} by its source`);
  if (answer.picture.converted) notes.push(answer.picture.conversion);
  at("note").textContent = notes.join("; ");
  show(at("note"), notes.length > 0);
  cards(answer);
  // On a phone the answer stands below what asked for it.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (at("verdict").getBoundingClientRect().bottom > innerHeight) {
    at("verdict").scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }
}

function refuse(sentence) {
  show(at("pictures"), false);
  show(at("note"), false);
  rest();
  at("error").textContent = sentence;
  show(at("error"), true);
}

async function ask(file, button = null) {
  asked?.abort();
  const mine = (asked = new AbortController());
  for (const other of document.querySelectorAll("#samples button")) other.setAttribute("aria-pressed", other === button);
  show(at("error"), false);
  const most = model.limits.upload_bytes;
  if (file.size > most) {
    refuse(`${file.name}: got ${(file.size / 1e6).toFixed(1)} MB; accepted: up to ${(most / 1e6).toFixed(1)} MB`);
    return;
  }
  at("main").setAttribute("aria-busy", "true");
  try {
    const form = new FormData();
    form.append("file", file, file.name);
    const reply = await fetch("api/predict", { method: "POST", body: form, signal: mine.signal });
    const answer = await reply.json();
    if (mine !== asked) return;
    if (!reply.ok) {
      refuse(answer.error);
      return;
    }
    if (givenAddress !== null) URL.revokeObjectURL(givenAddress);
    givenAddress = URL.createObjectURL(file);
    at("given").src = givenAddress;
    at("given").classList.toggle("pixels", Math.max(answer.picture.width, answer.picture.height) <= 128);
    showAnswer(answer, button === null ? null : button.textContent);
  } catch (error) {
    if (error.name === "AbortError" || mine !== asked) return;
    refuse("The server does not answer; is ramify serve still running?");
  } finally {
    if (mine === asked) at("main").setAttribute("aria-busy", "false");
  }
}

function take(files) {
  if (model === null) return;
  if (files.length === 1) ask(files[0]);
  else if (files.length > 1) refuse(`Got ${files.length} files; give one picture at a time.`);
  else refuse("Got no file; drop a picture file.");
}

function listen() {
  at("file").addEventListener("change", (event) => {
    if (event.target.files.length) take([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  let inside = 0;
  const over = (on) => at("drop").classList.toggle("over", on);
  addEventListener("dragenter", (event) => { event.preventDefault(); inside += 1; over(true); });
  addEventListener("dragleave", () => { inside -= 1; if (inside <= 0) over(false); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    inside = 0;
    over(false);
    take([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take([...event.clipboardData.files]);
  });
}

function offer(samples) {
  show(at("try"), samples.length > 0);
  samples.forEach((sample, index) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = document.createElement("img");
    const label = document.createElement("span");
    button.type = "button";
    button.title = `a test picture labelled ${sample.class}`;
    button.setAttribute("aria-pressed", "false");
    image.src = sample.url;
    image.alt = "";
    image.className = Math.max(...model.input_shape.slice(1)) <= 128 ? "pixels" : "";
    label.textContent = sample.class;
    button.append(image, label);
    button.addEventListener("click", async () => {
      try {
        const picture = await (await fetch(sample.url)).blob();
        ask(new File([picture], `test picture ${index + 1}.png`, { type: "image/png" }), button);
      } catch {
        refuse("The server does not answer; is ramify serve still running?");
      }
    });
    item.append(button);
    at("samples").append(item);
  });
}

async function start() {
  rest();
  at("curl").textContent = `curl -F file=@picture.png ${location.origin}/api/predict`;
  try {
    model = await (await fetch("api/model")).json();
  } catch {
    refuse("The server does not answer; is ramify serve still running?");
    return;
  }
  const [channels, height, width] = model.input_shape;
  document.title = `${model.name} \u00b7 ramify`;
  at("name").textContent = model.name;
  const colour = channels === 1 ? "gray" : "colour";
  const exits = model.exits.length === 1 ? "1 exit" : `${model.exits.length} exits`;
  const first = `${model.classes.length} classes, ${width} \u00d7 ${height} pixels in ${colour}, ${exits}.`;
  const policy = model.policy.charAt(0).toUpperCase() + model.policy.slice(1);
  at("about").textContent = `${first} ${policy}.`;
  rest();
  offer(model.samples);
  listen();
}

start();
