// What JupyterLab loads first: the kit's container of modules, in the form that webpack's module
// federation has given it. Everything else is a plain module that the browser loads as it is.

(() => {
  const here = new URL(".", document.currentScript.src);
  let scope = null;

  // JupyterLab's own copy of a package: a copy of ours would have other tokens.
  async function shared(name) {
    const versions = Object.values(scope[name] ?? {});
    const found = versions.find((version) => version.loaded) ?? versions[0];
    if (!found) {
      throw new Error(`labkit: JupyterLab shares no ${name}`);
    }
    return (await found.get())();
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB.labkit = {
    init(given) {
      scope = given;
    },
    async get() {
      const { plugins } = await import(new URL("extension.js", here));
      const made = await plugins(shared);
      return () => ({ __esModule: true, default: made });
    },
  };
})();
