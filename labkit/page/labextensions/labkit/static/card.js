// The swarm in a few words, with the one thing to do about it.

import { agreed } from "./dialog.js";
import { button, element, refill } from "./elements.js";

const PAUSED = "Paused while you are away: this is how it was. Move the mouse or press a key to go on.";

// An empty card; a screen reader says what comes into it.
export function emptyCard() {
  return element("div", { class: "labkit-card", "aria-live": "polite" });
}

// Shows in a card what is said of the swarm, where that is something new.
export function showCard(card, feed, server, apputils) {
  const { seen, version, ...said } = feed.state ?? {};
  const now = JSON.stringify([said, feed.failed?.message, feed.resting]);
  if (card.dataset.said !== now) {
    card.dataset.said = now;
    refill(card, wordsOf(feed, server, apputils));
  }
}

function wordsOf(feed, server, apputils) {
  const { state, failed } = feed;
  if (failed) {
    return [line("lost", "▲", failed.message), element("p", {}, failed.hint)];
  }
  if (!state) {
    return [element("p", {}, "Looking for your swarm …")];
  }
  return [
    line(state.state, state.sign, state.title),
    element("p", {}, sentence(state.told)),
    state.hint && element("p", { class: "labkit-hint" }, state.hint),
    feed.resting && element("p", { class: "labkit-hint" }, PAUSED),
    state.failed && element("p", { class: "labkit-problem" }, state.failed),
    state.state === "working" && element("progress", { "aria-label": state.told }),
    step(state, server, feed, apputils),
  ];
}

function line(state, sign, words) {
  const shown = element("span", { class: `labkit-sign labkit-${state}`, "aria-hidden": "true" }, sign);
  return element("h2", { class: "labkit-state" }, shown, ` ${words}`);
}

function sentence(text) {
  const end = /[.!?:…]$/.test(text) ? "" : ".";
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${end}`;
}

function step(state, server, feed, apputils) {
  const act = (action) => tell(feed, server.act({ do: action }));
  if (state.state === "none") {
    return button("Start the swarm", () => act("start"), { "data-key": "start" });
  }
  // It may be there, and answer in a moment.
  const reset = async () => (await agreed(apputils, "Reset")) && act("reset");
  return state.state === "lost" && button("Reset the swarm", reset, { "data-key": "reset" });
}

// Shows what went wrong with a click where the state is shown.
async function tell(feed, asked) {
  try {
    await asked;
  } catch (problem) {
    feed.failed = problem;
    feed.show();
  }
}
