// What people do with their keys, with matrix-js-sdk and its real cryptography.

import assert from "node:assert/strict";

import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

import { PASSWORD } from "./person.mjs";
import { until } from "./server.mjs";

// What the cryptography says while it works.
for (const level of ["debug", "log", "info", "warn"]) console[level] = () => {};

/** Shows who it is when the server wants to know. */
export const authorised = (person) => (request) =>
    request(null).catch(({ data: { session } }) =>
        request({ type: "m.login.password", session, password: PASSWORD, identifier: { type: "m.id.user", user: person.id } }),
    );

/** Cross-signing, secrets on the server, and a backup of keys; gives the key to the secrets. */
export async function setUp(person) {
    const crypto = person.sdk.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: authorised(person) });
    const key = await crypto.createRecoveryKeyFromPassphrase();
    await crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => key, setupNewKeyBackup: true });
    return key.privateKey;
}

/** Waits until a person reads an event, and gives what it says. */
export async function reads(person, room, id) {
    const event = await person.sees(room, id);
    await until(`${person.id} can read ${id}`, () => event.isEncrypted() && !event.isDecryptionFailure() && event.getClearContent() !== null);
    return event.getContent().body;
}

export const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };

/** Two people compare pictures in a room, and find that each is who it says. */
export async function verify(asker, asked, room) {
    // Who is not known cannot be asked.
    await asker.sdk.getCrypto().userHasCrossSigningKeys(asked.id, true);
    await asked.sdk.getCrypto().userHasCrossSigningKeys(asker.id, true);
    const asking = new Promise((resolve) => asked.sdk.once(CryptoEvent.VerificationRequestReceived, resolve));
    const request = await asker.sdk.getCrypto().requestVerificationDM(asked.id, room);
    const received = await asking;
    await received.accept();
    await until("both are ready", () => request.phase === VerificationPhase.Ready);
    const pictures = [];
    const compare = (verifier) => {
        verifier.once(VerifierEvent.ShowSas, (sas) => {
            pictures.push(sas.sas.emoji.map(([picture]) => picture).join(" "));
            sas.confirm();
        });
        return verifier.verify();
    };
    const first = compare(await request.startVerification("m.sas.v1"));
    await until("it has begun", () => received.verifier !== undefined);
    await Promise.all([first, compare(received.verifier)]);
    assert.equal(pictures.length, 2);
    assert.equal(pictures[0], pictures[1]);
}

/** Whether a person trusts all devices that another has signed. */
export const trusts = (person, other) => async () =>
    (await person.sdk.getCrypto().getUserVerificationStatus(other.id)).isCrossSigningVerified();

/** Whether a person knows a device of another, and that its owner has signed it. */
export const knows = (person, owner, device) => async () =>
    (await person.sdk.getCrypto().getDeviceVerificationStatus(owner.id, device))?.signedByOwner === true;

/** The ids of the devices of another that a person would send keys to. */
export async function devices(person, owner) {
    return [...(await person.sdk.getCrypto().getUserDeviceInfo([owner.id])).get(owner.id).keys()];
}

/** A further device of a person, which signs itself and restores what was said before. */
export async function another(person, privateKey) {
    const device = await person.elsewhere({ privateKey });
    await device.encrypt();
    const crypto = device.sdk.getCrypto();
    assert.ok(await crypto.userHasCrossSigningKeys(person.id, true));
    await crypto.bootstrapCrossSigning({});
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await crypto.restoreKeyBackup();
    assert.ok(restored.imported > 0 && restored.imported === restored.total, JSON.stringify(restored));
    return device;
}

/** A device of a person is deleted by another. */
export async function remove(person, device) {
    device.stop();
    await authorised(person)((auth) => person.sdk.deleteDevice(device.sdk.getDeviceId(), auth ?? undefined));
}
