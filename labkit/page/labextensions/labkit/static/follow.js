// Follows the state of the swarm for whoever shows it: one question at a time, and none while nobody looks
// or nobody is there. A swarm that nobody asks anything can rest.

const PAUSE_MS = 2000; // after a question that failed
const AWAY_MS = 300_000; // without a movement, a key or a touch
const MOVES = ["pointermove", "pointerdown", "keydown", "wheel", "touchstart"];

export class Feed {
  constructor(server) {
    this.server = server;
    this.state = null;
    this.failed = null;
    this.looking = new Set();
    this.running = false;
    this.resting = false;
    this.moved = Date.now();
    document.addEventListener("visibilitychange", () => this.run());
    for (const move of MOVES) {
      document.addEventListener(move, () => this.here(), { capture: true, passive: true });
    }
  }

  // Somebody is there.
  here() {
    this.moved = Date.now();
    if (this.resting) {
      this.resting = false;
      this.show();
      this.run();
    }
  }

  // Calls `show()` now and at each change, until the function that this returns is called.
  follow(show) {
    this.looking.add(show);
    show();
    this.run();
    return () => this.looking.delete(show);
  }

  get wanted() {
    return this.looking.size > 0 && !document.hidden;
  }

  async run() {
    if (this.running) {
      return;
    }
    this.running = true;
    try {
      while (this.wanted && Date.now() - this.moved < AWAY_MS) {
        await this.once();
      }
    } finally {
      this.running = false;
    }
    if (this.wanted) {
      this.resting = true;
      this.show();
    }
  }

  async once() {
    try {
      const known = this.state && !this.failed ? this.state.version : -1;
      const state = await this.server.swarm(known);
      const same = !this.failed && this.state?.version === state.version;
      this.state = state;
      this.failed = null;
      if (!same) {
        this.show();
      }
    } catch (problem) {
      this.failed = problem;
      this.show();
      await new Promise((go) => setTimeout(go, PAUSE_MS));
    }
  }

  show() {
    for (const show of [...this.looking]) {
      show();
    }
  }
}
