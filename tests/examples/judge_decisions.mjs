// What `isOpen` of the Node.js client says to each line of stdin, for comparison: node judge_decisions.mjs decision.mjs
import {readFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

const {isOpen, publicKeys} = await import(pathToFileURL(process.argv[2]));
for (const line of readFileSync(0, 'utf8').trim().split('\n')) {
  const {payload, signature, keys, simulated, modalities} = JSON.parse(line);
  const session = {sessionId: 's', nonce: 'ab'.repeat(32), transactionHash: null, beganNs: 0n, signingKeys: publicKeys(keys)};
  console.log(isOpen(Buffer.from(payload, 'base64'), Buffer.from(signature, 'base64'), session,
    {acceptSimulated: simulated, requiredModalities: modalities, nowNs: 100_000_000n}));
}
