// Follows the state of the swarm for whoever shows it: one question at a time, and none while nobody looks.

const PAUSE_MS = 2000; // after a question that failed

export class Feed {
  constructor(server) {
    this.server = server;
    this.state = null;
    this.failed = null;
    this.looking = new Set();
    this.running = false;
    document.addEventListener("visibilitychange", () => this.run());
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
      while (this.wanted) {
        await this.once();
      }
    } finally {
      this.running = false;
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
