// End-to-end encryption with matrix-js-sdk and its real cryptography: the server sees none of what is said.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { authorised, encryption, reads, setUp } from "./crypto.mjs";
import { Person } from "./person.mjs";
import { Server, until } from "./server.mjs";

let server;
const people = [];

before(async () => {
    server = await Server.start();
});

after(async () => {
    people.forEach((person) => person.stop());
    await server.stop();
});

/** Keeps a person for the end, and gives it its cryptography. */
async function encrypted(person) {
    people.push(person);
    await person.encrypt();
    return person;
}

const newcomer = async (name) => encrypted(await Person.register(server, name));

test("two people talk, a second device is verified, a backup is restored, a deleted device hears nothing", async () => {
    const [alice, bob] = [await newcomer("alice"), await newcomer("bob")];
    const { room_id: room } = await alice.sdk.createRoom({ preset: "private_chat", invite: [bob.id], initial_state: [encryption] });
    await until("bob is invited", () => bob.room(room)?.getMyMembership() === "invite");
    await bob.sdk.joinRoom(room);
    await until("both are there", () => [alice, bob].every((person) => person.room(room)?.getJoinedMemberCount() === 2));

    const first = await alice.say(room, "in secret");
    assert.equal(await reads(bob, room, first), "in secret");
    const second = await bob.say(room, "as it shall be");
    assert.equal(await reads(alice, room, second), "as it shall be");
    const seen = await alice.ask(`v3/rooms/${encodeURIComponent(room)}/event/${encodeURIComponent(first)}`);
    assert.equal(seen.type, "m.room.encrypted");
    assert.ok(!JSON.stringify(seen).includes("secret"));

    // A second device takes the keys out of the secrets, and signs itself.
    const privateKey = await setUp(alice);
    const backup = await alice.ask("v3/room_keys/version");
    await until("the keys are backed up", async () => (await alice.ask("v3/room_keys/version")).count > 0);
    const tablet = await alice.elsewhere({ privateKey });
    await encrypted(tablet);
    assert.ok(await tablet.sdk.getCrypto().userHasCrossSigningKeys(alice.id, true));
    await tablet.sdk.getCrypto().bootstrapCrossSigning({});
    const verified = (person, device) => async () =>
        (await person.sdk.getCrypto().getDeviceVerificationStatus(alice.id, device))?.signedByOwner === true;
    await until("alice has verified the tablet", verified(alice, tablet.sdk.getDeviceId()));
    await until("bob sees that she has", verified(bob, tablet.sdk.getDeviceId()));
    assert.ok(await tablet.sdk.getCrypto().isCrossSigningReady());

    // What was said before comes out of the backup.
    await tablet.sdk.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await tablet.sdk.getCrypto().restoreKeyBackup();
    assert.ok(restored.imported > 0 && restored.imported === restored.total, JSON.stringify(restored));
    await tablet.sdk.getCrypto().checkKeyBackupAndEnable();
    assert.equal(await tablet.sdk.getCrypto().getActiveSessionBackupVersion(), backup.version);
    const read = await tablet.sees(room, first);
    await tablet.sdk.decryptEventIfNeeded(read, { isRetry: true });
    assert.equal(await reads(tablet, room, first), "in secret");
    // What is said from now on comes to all devices.
    const third = await bob.say(room, "to all of you");
    for (const person of [alice, tablet]) assert.equal(await reads(person, room, third), "to all of you");

    // A device that is deleted gets no keys any more.
    const gone = tablet.sdk.getDeviceId();
    tablet.stop();
    await authorised(alice)((auth) => alice.sdk.deleteDevice(gone, auth ?? undefined));
    const devices = async () => (await bob.sdk.getCrypto().getUserDeviceInfo([alice.id])).get(alice.id);
    await until("bob does not know it any more", async () => !(await devices()).has(gone));
    const fourth = await bob.say(room, "to one alone");
    assert.equal(await reads(alice, room, fourth), "to one alone");
});
