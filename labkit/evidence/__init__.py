"""Evidence: a file of everything that a lab asked of its swarm, and of every answer, in order.

It is text, one JSON object a line, beside the notebook that asked: `04_join_an_overlay.evidence.jsonl`,
or packed, with `.gz`. Each line has

    number, kind             from 1; lab (the lab was attached), command (on a node), api (of a node's
                             Docker engine), or what the learner did: try, hint, prediction
    session, run             the kernel that asked, and the number of the cell's run in it
    cell, source             what the notebook calls the cell (where it tells), a short hash of its text
    learner, docker          whose variant it was; the Docker version
    started, seconds         when it was asked, in UTC, and how long the answer took
    previous, hash           the hash of the line before; the SHA-256 of this line up to here

and, by its kind,

    lab        lab, engine, accel, labkit, nodes
    command    node, place, netns, pid, argv, ready; code, stdout, stderr, timed_out, and, by the node's
               own clock, began, ran
    api        node, method, path, body; status, type, response, encoding (text or base64)
    try        question, name, answer: a wrong answer, which the check had not had before
    hint       question, step: a hint was shown, from 1
    prediction question, name, predicted, measured: both were shown side by side

Where there was no answer, `error` says why instead. A text of more than `format.MAX_TEXT` characters is
left out, and `cut` tells its length and its SHA-256. Join tokens are blotted out.

What the chain of hashes proves: that the file is whole and in order, as *somebody* wrote it. One
changed byte, a line taken out, put in or moved is found. It holds no secret, so who can run labkit can
also make a false chain that is whole; lines missing at the very end leave no trace either. `audit`
therefore also looks for what does not fit in itself, and `traits` tells what only one run of a lab can
have. What they find is a report for a person and not a verdict: a clock that was set, a second kernel
or a copied folder look odd too. A host that learners cannot write to can sign what was handed in, with
`signing`.
"""
