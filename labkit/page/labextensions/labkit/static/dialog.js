// Asks before what is in the swarm is lost.

// Whether the learner agrees, by a button with this word.
export async function agreed({ Dialog, showDialog }, word) {
  const answer = await showDialog({
    title: `${word}?`,
    body:
      "Services, networks and rules made since then are gone. An open notebook finds the new swarm " +
      "by labkit.attach(): run its cells again from the first one.",
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: word })],
  });
  return answer.button.accept;
}
