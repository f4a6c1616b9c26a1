/* The page's beginning: connects where the figures come from to what shows them, and says whether they are live. */

import { mood, put } from "./dom.js";
import { ago, clock, moment } from "./format.js";
import { Source, forget, remember } from "./stream.js";
import { View, tally } from "./view.js";

const byId = (id) => document.getElementById(id);
const view = new View();
let cut = null; // {since, text(seconds)} while the figures are not live
let firingSaid = 0;

function state(kind, shape, word) {
  mood(byId("state"), "state", kind);
  put(byId("state").querySelector(".shape"), shape);
  put(byId("state").querySelector(".word"), word);
}

function live(status) {
  cut = null;
  document.body.classList.remove("stale");
  byId("banner").hidden = true;
  byId("door").hidden = true;
  byId("links").hidden = false;
  view.show(status);
  if (status.draining) state("warn", "▲", "draining");
  else if (status.ready) state("good", "●", "ready");
  else state("bad", "✕", "not ready");
  put(byId("freshness"), "live, as of " + clock(status.at), moment(status.at));
  announce(status);
}

/** The tab's title and the one live region: only what a person must know at once. */
function announce(status) {
  const firing = tally(status, "firing");
  document.title = (firing ? `(${firing} firing) ` : "") + "pgreflex, " + status.process;
  if (firing !== firingSaid) {
    byId("news").textContent = firing ? `${firing} alert${firing === 1 ? "" : "s"} firing` : "no alert is firing";
    firingSaid = firing;
  }
}

function notLive(word, text) {
  const since = cut?.since ?? Date.now() - (view.status ? performance.now() - view.heardAt : 0);
  cut = { since, text };
  view.frozen = true;
  document.body.classList.add("stale");
  document.title = word + ": pgreflex";
  state("gone", "○", word);
  sayHowLong();
}

/** The banner is a live region and is written once; what runs on is in the footer, which is none. */
function sayHowLong() {
  if (!cut) return;
  const banner = byId("banner");
  const text = cut.text(clock(cut.since / 1000));
  if (banner.dataset.text !== text) {
    banner.dataset.text = text;
    banner.textContent = text;
  }
  banner.hidden = false;
  const last = view.status;
  put(byId("freshness"), last ? `not live; as of ${clock(last.at)}, ${ago(view.now() - last.at)}` : "no figures yet", last ? moment(last.at) : null);
}

const below = () => (view.status ? " The figures below are from before." : "");

const source = new Source({
  onStatus: live,
  onProblem: ({ detail, hint }) =>
    notLive("no figures", (since) => `The process answers but has had no figures since ${since}. ${detail} ${hint}${below()}`),
  onCut: (reason) =>
    notLive("disconnected", (since) => `Disconnected since ${since}.${reason ? " " + reason : ""} Trying again.${below()}`),
  onDoor: (tried) => {
    if (tried) {
      forget();
      byId("door-answer").textContent = "This token is not the one. Check it and try again.";
    }
    byId("door").hidden = false;
    byId("main").hidden = true;
    byId("facts").hidden = true;
    cut = null;
    byId("links").hidden = true;
    byId("banner").hidden = true;
    state("waiting", "○", "locked");
    byId("token").focus();
  },
});

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token");
  remember(field.value.trim());
  field.value = "";
  byId("door-answer").textContent = "";
  source.restart();
});

setInterval(sayHowLong, 1000);
source.restart();
