// A wallet by cashu-ts, for one payment. The first argument is the folder in which the library is installed.
//
//   receive MINT TOKEN              prints what the token was worth
//   pay MINT TOKEN AMOUNT KEY       exchanges the token, and prints one of AMOUNT that is locked to KEY
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, command, mint, token, amount, key] = process.argv.slice(2);
const library = createRequire(`${folder}/`).resolve('@cashu/cashu-ts');
const { Wallet, getEncodedToken } = await import(pathToFileURL(library));

const wallet = new Wallet(mint, { unit: 'sat' });
await wallet.loadMint();
const proofs = await wallet.receive(token);
const sum = proofs.reduce((all, proof) => all + Number(proof.amount.toString()), 0);
if (command === 'receive') {
  console.log(sum);
} else {
  const month = Math.floor(Date.now() / 1000) + 31 * 86400;
  const pubkey = key;
  const refundKeys = [`02${'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}`];
  const { send } = await wallet.ops
    .send(Number(amount), proofs)
    .asP2PK({ pubkey, locktime: month, refundKeys })
    .run();
  console.log(getEncodedToken({ mint, proofs: send, unit: 'sat' }));
}
