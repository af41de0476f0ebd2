// What was asked of a service, and the answer: whom its balancers choose from, or the way of a request,
// which is shown going, one place after the other.

import { button, element } from "./elements.js";

const STEP_MS = 900;
const AGAIN_MS = 1500;
const MOST_TRIES = 5; // that fail, one after the other

export class Trace {
  constructor(server, draw) {
    this.server = server;
    this.draw = draw;
    this.version = null; // of the swarm's state that was seen last
    this.changed = false; // since the balancers were asked
    this.renewing = false;
    this.forget();
  }

  forget() {
    clearTimeout(this.timer);
    this.asked = null;
    this.answer = null;
    this.at = 0; // so many steps are shown
  }

  // Asks, shows the answer as it comes, and returns it.
  async ask(what) {
    this.forget();
    this.asked = what;
    this.draw();
    try {
      const answer = await this.server.service(what);
      if (this.asked === what) {
        this.show(answer);
      }
      return answer;
    } catch (problem) {
      if (this.asked === what) {
        this.forget();
        this.draw();
      }
      throw problem;
    }
  }

  show(answer) {
    this.answer = answer;
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.at = this.asked.ask === "way" && !still ? 1 : answer.steps.length;
    this.draw();
    this.go();
  }

  go() {
    if (this.at < this.answer.steps.length) {
      this.timer = setTimeout(() => {
        this.at += 1;
        this.draw();
        this.go();
      }, STEP_MS);
    }
  }

  // Balancers change with the tasks, and a moment after them: when the swarm has changed they are asked
  // until they say the same twice.
  async renew(seen, version) {
    this.changed ||= this.version !== version;
    this.version = version;
    if (seen && this.asked && !seen.services.some((row) => row.name === this.asked.service)) {
      this.forget(); // it was removed
    }
    const asked = this.asked;
    if (!this.changed || this.renewing || asked?.ask !== "balancers" || !this.answer) {
      return;
    }
    this.renewing = true;
    let tries = MOST_TRIES;
    let settled = false;
    while (!settled && this.asked === asked && tries > 0) {
      this.changed = false;
      const answer = await this.server.service(asked).catch(() => null); // the swarm is busy, say
      if (this.asked === asked) {
        const same = answer !== null && JSON.stringify(answer) === JSON.stringify(this.answer);
        settled = same && !this.changed;
        tries = answer === null ? tries - 1 : MOST_TRIES;
        if (answer !== null && !same) {
          this.answer = answer;
          this.at = answer.steps.length;
          this.draw();
        }
        if (!settled) {
          await new Promise((go) => setTimeout(go, AGAIN_MS));
        }
      }
    }
    this.renewing = false;
    if (this.asked !== asked) {
      this.draw(); // what is asked now may have to be asked again too
    }
  }

  // The numbers of the steps that a request has taken on a node.
  stepsOn(node) {
    if (this.asked?.ask !== "way" || !this.answer) {
      return null;
    }
    const shown = this.answer.steps.slice(0, this.at);
    const numbers = shown.flatMap((step, at) => (step.node === node ? [at + 1] : []));
    if (numbers.length === 0) {
      return null;
    }
    const words = `The request came by here: ${numbers.length > 1 ? "steps" : "step"} ${numbers.join(", ")}`;
    return element("p", { class: numbers.includes(this.at) ? "labkit-here" : "labkit-passed" }, words);
  }

  answerFor(service) {
    if (this.asked?.service !== service) {
      return null;
    }
    if (!this.answer) {
      return element("p", { role: "status" }, "Asking the swarm …");
    }
    const close = () => {
      this.forget();
      this.draw();
    };
    return element(
      "div",
      { class: "labkit-answer" },
      element(
        "ol",
        { "aria-label": this.asked.ask === "way" ? "The way of the request" : "Balancers" },
        this.answer.steps
          .slice(0, this.at)
          .map((step) => element("li", {}, element("strong", {}, step.place), element("p", {}, step.told))),
      ),
      button("Close", close, { "data-key": `close ${service}`, "aria-label": `Close the answer on ${service}` }),
    );
  }
}
