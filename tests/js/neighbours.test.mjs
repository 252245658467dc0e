// End-to-end encryption between two homeservers, with matrix-js-sdk and its real cryptography.

import assert from "node:assert/strict";
import { test } from "node:test";

import { another, devices, encryption, knows, reads, remove, setUp, trusts, verify } from "./crypto.mjs";
import { Person } from "./person.mjs";
import { Neighbours, until } from "./server.mjs";

async function newcomer(server, name) {
    const person = await Person.register(server, name);
    await person.encrypt();
    return person;
}

/** Two people on two servers, in one encrypted room. */
async function meet(alice, bob) {
    const { room_id: room } = await alice.sdk.createRoom({ preset: "private_chat", invite: [bob.id], initial_state: [encryption] });
    await until("bob is invited", () => bob.room(room)?.getMyMembership() === "invite");
    await bob.sdk.joinRoom(room);
    await until("both are there", () => [alice, bob].every((person) => person.room(room)?.getJoinedMemberCount() === 2));
    return room;
}

/** Says something that all of these devices read. */
async function tell(from, room, text, readers) {
    const event = await from.say(room, text);
    for (const reader of readers) assert.equal(await reads(reader, room, event), text);
    return event;
}

/** Somebody's new device takes part, as far as another person is concerned, until it is deleted. */
async function comeAndGo(owner, privateKey, other, room, before) {
    const tablet = await another(owner, privateKey);
    try {
        const id = tablet.sdk.getDeviceId();
        await until(`${other.id} knows the tablet`, knows(other, owner, id));
        // Their verification stands in between.
        await tablet.sdk.scrollback(tablet.room(room), 50);
        const old = await tablet.sees(room, before);
        await tablet.sdk.decryptEventIfNeeded(old, { isRetry: true });
        await reads(tablet, room, before);
        await tell(other, room, "to both of you", [owner, tablet]);
        await tell(tablet, room, "from the tablet", [owner, other]);
        await remove(owner, tablet);
        await until(`${other.id} does not know it any more`, async () => !(await devices(other, owner)).includes(id));
        await tell(other, room, "to one alone", [owner]);
    } finally {
        tablet.stop();
    }
}

for (const kinds of [["parlour", "parlour"], ["parlour", "synapse"], ["synapse", "parlour"]]) {
    test(`${kinds.join(" and ")}: talk in secret, verification, backup, devices that come and go`, async () => {
        const neighbours = await Neighbours.start(kinds);
        const people = [];
        try {
            const [one, two] = neighbours.servers;
            const [alice, bob] = [await newcomer(one, "alice"), await newcomer(two, "bob")];
            people.push(alice, bob);
            const room = await meet(alice, bob);
            const first = await tell(alice, room, "in secret", [bob]);
            await tell(bob, room, "as it shall be", [alice]);

            const [ofAlice, ofBob] = [await setUp(alice), await setUp(bob)];
            await verify(alice, bob, room);
            await until("alice trusts bob", trusts(alice, bob));
            await until("bob trusts alice", trusts(bob, alice));
            for (const person of people) {
                const backedUp = async () => (await person.ask("v3/room_keys/version")).count > 1;
                await until("the keys are backed up", backedUp);
            }
            await comeAndGo(alice, ofAlice, bob, room, first);
            await comeAndGo(bob, ofBob, alice, room, first);
        } finally {
            people.forEach((person) => person.stop());
            await neighbours.stop();
        }
    });
}
