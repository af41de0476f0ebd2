// Asks the kit's part of Jupyter's server.

export function asking(services) {
  const { ServerConnection } = services;
  const settings = ServerConnection.makeSettings();

  async function ask(path, body) {
    const address = `${settings.baseUrl}labkit/${path}`;
    const how = body ? { method: "POST", body: JSON.stringify(body) } : { cache: "no-store" };
    let answer;
    try {
      answer = await ServerConnection.makeRequest(address, how, settings);
    } catch {
      throw new Failed("Jupyter's server does not answer", "Start it again in its terminal: labkit lab");
    }
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) {
      throw new Failed(found.message ?? `Jupyter's server answered ${answer.status}`, found.hint ?? "");
    }
    return found;
  }

  return {
    labs: () => ask("labs"),
    questions: (lab) => ask(`questions?lab=${encodeURIComponent(lab)}`),
    swarm: (after) => ask(after < 0 ? "swarm" : `swarm?after=${after}`),
    service: (what) => ask("service", what),
    act: (what) => ask("do", what),
    terminal: (place) => ask("terminal", place),
    shells: () => ask("terminal"),
    typed: (shell) => ask("terminal", { shell }),
    class: () => ask("class"),
    handIn: (path) => ask("class", { do: "hand in", path }),
    fetch: () => ask("class", { do: "fetch" }),
  };
}

export class Failed extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}
