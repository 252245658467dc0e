// matrix-js-sdk on Node, unchanged: what it makes of a room is what the server has.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Filter, NotificationCountType, RoomMemberEvent, RoomStateEvent } from "matrix-js-sdk";

import { Person } from "./person.mjs";
import { Server, until } from "./server.mjs";

let server;
const people = [];
let number = 0;

before(async () => {
    server = await Server.start();
});

after(async () => {
    people.forEach((person) => person.stop());
    await server.stop();
});

async function newPerson(name) {
    const person = await Person.register(server, `${name}${number++}`);
    people.push(person);
    return person;
}

/** Two people in a public room of the first. */
async function pair(options = {}) {
    const [alice, bob] = [await newPerson("alice"), await newPerson("bob")];
    const { room_id: room } = await alice.sdk.createRoom({ preset: "public_chat", name: "Salon", ...options });
    await bob.sdk.joinRoom(room);
    await until("both are there", () => joined(alice, room) === 2 && joined(bob, room) === 2);
    return [alice, bob, room];
}

const joined = (person, room) => person.room(room)?.getJoinedMemberCount();
const edit = (event, body) => ({
    "m.new_content": { msgtype: "m.text", body },
    "m.relates_to": { rel_type: "m.replace", event_id: event },
});
const reaction = (event, key) => ({ "m.relates_to": { rel_type: "m.annotation", event_id: event, key } });

test("a conversation, from both ends", async () => {
    const [alice, bob, room] = await pair();
    let last;
    for (let n = 0; n < 40; n++) last = await (n % 2 ? alice : bob).say(room, `message ${n}`);
    await alice.sdk.setRoomTopic(room, "what was said");
    const { event_id: end } = await alice.sdk.setRoomName(room, "Parlour");
    for (const person of [alice, bob]) {
        await person.sees(room, end);
        assert.equal(person.room(room).name, "Parlour");
        await person.agreesOn(room);
        assert.equal(person.room(room).findEventById(last).getContent().body, "message 39");
    }
});

test("a client that was away catches up over a gap", async () => {
    const [alice, bob, room] = await pair();
    bob.stop();
    for (let n = 0; n < 30; n++) await alice.say(room, `meanwhile ${n}`);
    await alice.sdk.sendStateEvent(room, "org.example.state", { n: 1 }, "key");
    const last = await alice.say(room, "are you there?");
    await bob.start();
    await bob.sees(room, last);
    await bob.agreesOn(room);
    // Another device, which has never seen the room.
    const tablet = await bob.elsewhere();
    people.push(tablet);
    await tablet.agreesOn(room);
});

test("members come, go, are sent away and forgiven", async () => {
    const [alice, bob, room] = await pair();
    const carol = await newPerson("carol");
    await alice.sdk.invite(room, carol.id);
    await until("carol is invited", () => carol.room(room)?.getMyMembership() === "invite");
    assert.equal(carol.room(room).getDMInviter() ?? alice.id, alice.id);
    await carol.sdk.joinRoom(room);
    await until("carol is in", () => joined(alice, room) === 3);
    await alice.agreesOn(room);
    await alice.sdk.kick(room, carol.id, "too loud");
    await until("carol knows", () => carol.room(room).getMyMembership() === "leave");
    await alice.sdk.ban(room, bob.id);
    await until("bob knows", () => bob.room(room).getMyMembership() === "ban");
    await assert.rejects(bob.sdk.joinRoom(room), { errcode: "M_FORBIDDEN" });
    await alice.sdk.unban(room, bob.id);
    await bob.sdk.joinRoom(room);
    await until("bob is back", () => joined(alice, room) === 2 && joined(bob, room) === 2);
    await alice.agreesOn(room);
    await bob.agreesOn(room);
    await carol.sdk.forget(room);
    assert.equal(carol.room(room), null);
});

test("a thread is a timeline of its own", async () => {
    const [alice, bob, room] = await pair();
    const root = await alice.say(room, "let us talk about trees");
    const replies = [await bob.reply(room, root, "leaf 0")];
    // While the SDK sets up a thread, it guesses by the clock where what comes by /sync belongs.
    const isThere = (person) => person.room(room).getThread(root)?.initialEventsFetched;
    await until("the thread is set up", () => isThere(alice) && isThere(bob));
    for (let n = 1; n < 12; n++) replies.push(await (n % 2 ? alice : bob).reply(room, root, `leaf ${n}`));
    const beside = await bob.say(room, "and now for something else");
    for (const person of [alice, bob]) {
        await person.sees(room, beside);
        const own = () => person.room(room).getThread(root);
        await until("the thread has its end", () => own()?.findEventById(replies[11]));
        assert.deepEqual(await person.pageBack(own().timelineSet), [root, ...replies]);
        await person.agreesOn(room);
    }
    // Who comes later finds it in the list of threads.
    const tablet = await bob.elsewhere();
    people.push(tablet);
    await tablet.room(room).createThreadsTimelineSets();
    await tablet.room(room).fetchRoomThreads();
    const found = tablet.room(room).getThread(root);
    assert.equal(found.length, 12);
    assert.equal(found.hasCurrentUserParticipated, true);
    assert.equal(found.replyToEvent.getId(), replies[11]);
});

test("edits, reactions and redactions", async () => {
    const [alice, bob, room] = await pair();
    const said = await alice.say(room, "teh cat");
    // What comes with an edit already in it keeps that edit for good as the SDK's `replacingEventId`.
    for (const person of [alice, bob]) await person.sees(room, said);
    await alice.say(room, "* the bat", edit(said, "the bat"));
    const newest = await alice.say(room, "* the cat", edit(said, "the cat"));
    await bob.sdk.sendEvent(room, null, "m.reaction", reaction(said, "+1"));
    const { event_id: mine } = await alice.sdk.sendEvent(room, null, "m.reaction", reaction(said, "+1"));
    await assert.rejects(alice.sdk.sendEvent(room, null, "m.reaction", reaction(said, "+1")), { errcode: "M_DUPLICATE_ANNOTATION" });
    alice.forgetRefused(room);
    await alice.sdk.redactEvent(room, mine);
    const regretted = await bob.say(room, "I regret this");
    await bob.sdk.redactEvent(room, regretted, undefined, { reason: "regret" });
    const last = await alice.say(room, "so be it");
    const tablet = await bob.elsewhere();
    people.push(tablet);
    for (const person of [alice, bob, tablet]) {
        await person.sees(room, last);
        await person.agreesOn(room);
        const event = person.room(room).findEventById(said);
        await until("the edit is seen", () => event.replacingEventId() === newest);
        assert.equal(event.getContent().body, "the cat");
        const reactions = person.room(room).relations.getChildEventsForEvent(said, "m.annotation", "m.reaction");
        assert.deepEqual(reactions.getSortedAnnotationsByKey().map(([key, events]) => [key, events.size]), [["+1", 1]]);
        assert.ok(person.room(room).findEventById(regretted).isRedacted());
    }
    const { events } = await bob.sdk.relations(room, said, "m.annotation", "m.reaction");
    assert.equal(events.length, 1);
});

test("what is unread, in the room and in threads", async () => {
    const [alice, bob, room] = await pair();
    const root = await alice.say(room, "first");
    const reply = await alice.reply(room, root, "in the thread");
    const last = await alice.say(room, `${bob.id}, look`, { "m.mentions": { user_ids: [bob.id] } });
    await bob.sees(room, last);
    const unread = (kind) => bob.room(room).getRoomUnreadNotificationCount(kind);
    await until("bob has three unread", () => bob.room(room).getUnreadNotificationCount() === 3);
    assert.equal(unread(NotificationCountType.Total), 2);
    assert.equal(unread(NotificationCountType.Highlight), 1);
    assert.equal(bob.room(room).getThreadUnreadNotificationCount(root), 1);
    await bob.agreesOn(room);

    await bob.sdk.sendReadReceipt(bob.room(room).findEventById(last));
    await until("the room is read", async () => unread() === 0 && readBy(alice, room, last).includes(bob.id));
    await until("the thread is known", () => bob.room(room).getThread(root)?.findEventById(reply));
    await bob.sdk.sendReadReceipt(bob.room(room).getThread(root).findEventById(reply));
    await until("the thread is read", () => bob.room(room).getThreadUnreadNotificationCount(root) === 0);
    await bob.sdk.setRoomReadMarkers(room, last);
    await until("the marker is there", () => bob.room(room).getAccountData("m.fully_read")?.getContent().event_id === last);
    await bob.agreesOn(room);
});

const readBy = (person, room, event) => person.room(room).getUsersReadUpTo(person.room(room).findEventById(event));

test("typing comes and goes", async () => {
    const [alice, bob, room] = await pair();
    let seen = [];
    bob.sdk.on(RoomMemberEvent.Typing, (_, member) => seen.push([member.userId, member.typing]));
    await alice.sdk.sendTyping(room, true, 20_000);
    await until("alice types", () => seen.length === 1);
    await alice.sdk.sendTyping(room, false, 0);
    await until("alice has stopped", () => seen.length === 2);
    assert.deepEqual(seen, [[alice.id, true], [alice.id, false]]);
});

test("a room is upgraded, and the way leads to the new one", async () => {
    const [alice, bob, room] = await pair({ room_version: "11" });
    await alice.sdk.setRoomTopic(room, "kept");
    const { replacement_room: next } = await alice.sdk.upgradeRoom(room, "12");
    await until("bob sees the tombstone", () => tombstone(bob, room)?.getContent().replacement_room === next);
    await bob.sdk.joinRoom(next);
    await until("both are there", () => joined(alice, next) === 2 && joined(bob, next) === 2);
    assert.equal(bob.room(next).getVersion(), "12");
    assert.equal(bob.room(next).findPredecessor().roomId, room);
    assert.equal(bob.room(next).name, "Salon");
    assert.equal(bob.room(next).currentState.getStateEvents("m.room.topic", "").getContent().topic, "kept");
    await assert.rejects(bob.say(room, "still here?"), { errcode: "M_FORBIDDEN" });
    const visible = bob.sdk.getVisibleRooms().map((one) => one.roomId);
    assert.ok(visible.includes(next) && !visible.includes(room));
    await alice.agreesOn(next);
    await bob.agreesOn(next);
    await bob.agreesOn(room);
});

const tombstone = (person, room) => person.room(room).currentState.getStateEvents("m.room.tombstone", "");

test("search finds what was said, page by page", async () => {
    const [alice, bob, room] = await pair();
    const said = [];
    for (let n = 0; n < 15; n++) said.push(await alice.say(room, `the quick brown fox number ${n}`));
    const secret = await alice.sdk.createRoom({ preset: "private_chat" });
    await alice.say(secret.room_id, "a fox that nobody sees");
    const found = await bob.sdk.searchRoomEvents({ term: "fox" });
    assert.equal(found.count, 15);
    while (found.next_batch) await bob.sdk.backPaginateRoomEventsSearch(found);
    const ids = found.results.map((result) => result.context.getEvent().getId());
    assert.deepEqual(ids.sort(), said.sort());
    assert.ok(found.highlights.includes("fox"));
});

test("profiles, the directory and ignored users", async () => {
    const [alice, bob, room] = await pair();
    await alice.sdk.setDisplayName("Alice Liddell");
    await until("bob sees the name", () => bob.room(room).getMember(alice.id).name === "Alice Liddell");
    assert.equal((await bob.sdk.getProfileInfo(alice.id)).displayname, "Alice Liddell");
    const { results } = await bob.sdk.searchUserDirectory({ term: "liddell" });
    assert.ok(results.some((user) => user.user_id === alice.id));
    await alice.sdk.setExtendedProfileProperty("m.tz", "Europe/London");
    assert.equal(await bob.sdk.getExtendedProfileProperty(alice.id, "m.tz"), "Europe/London");
    assert.equal((await bob.sdk.getExtendedProfile(alice.id))["m.tz"], "Europe/London");
    await alice.sdk.deleteExtendedProfileProperty("m.tz");
    await assert.rejects(bob.sdk.getExtendedProfileProperty(alice.id, "m.tz"));
    await bob.agreesOn(room);

    await bob.sdk.setIgnoredUsers([alice.id]);
    await until("bob ignores alice", () => bob.sdk.isUserIgnored(alice.id));
    const unseen = await alice.say(room, "can you hear me?");
    const seen = await bob.say(room, "la la la");
    await bob.sees(room, seen);
    assert.equal(bob.room(room).findEventById(unseen), undefined);
});

test("push rules, tags and account data reach the other device", async () => {
    const [alice, bob, room] = await pair();
    const tablet = await bob.elsewhere();
    people.push(tablet);
    await bob.sdk.addPushRule("global", "content", "word", { actions: ["notify", { set_tweak: "highlight" }], pattern: "parlour" });
    const usual = [".m.rule.message", ".m.rule.room_one_to_one"];
    for (const id of usual) await bob.sdk.setPushRuleEnabled("global", "underride", id, false);
    const rule = (id = "word", person = tablet) => person.sdk.pushProcessor.getPushRuleById(id);
    const areOff = (person) => usual.every((id) => !rule(id, person).enabled);
    await until("both have the rules", () => rule()?.pattern === "parlour" && areOff(tablet) && areOff(bob));
    // The SDK adds rules that it knows and rewrites conditions of others.
    for (const rules of Object.values((await bob.ask("v3/pushrules/")).global)) {
        for (const { rule_id: id, enabled, actions } of rules) {
            const own = tablet.sdk.pushProcessor.getPushRuleById(id);
            assert.deepEqual([own.enabled, own.actions], [enabled, actions], id);
        }
    }
    const quiet = await alice.say(room, "nobody is called");
    const loud = await alice.say(room, "the parlour is open");
    await bob.sees(room, loud);
    const actions = (event) => bob.sdk.getPushActionsForEvent(bob.room(room).findEventById(event));
    assert.equal(actions(loud).tweaks.highlight, true);
    assert.ok(!actions(quiet)?.notify);
    await until("one is unread", () => bob.room(room).getUnreadNotificationCount("highlight") === 1);
    await bob.agreesOn(room);
    await bob.sdk.deletePushRule("global", "content", "word");
    await until("the rule is gone", () => rule() === undefined || rule() === null);

    await bob.sdk.setRoomTag(room, "m.favourite", { order: 0.5 });
    await until("the tag is there", () => tablet.room(room).tags["m.favourite"]?.order === 0.5);
    await bob.sdk.setAccountData("org.example.data", { n: 1 });
    await until("the data are there", () => tablet.sdk.getAccountData("org.example.data")?.getContent().n === 1);
});

test("published rooms, aliases and spaces are found", async () => {
    const [alice, bob, room] = await pair();
    const alias = `#salon${number++}:localhost`;
    await alice.sdk.createAlias(alias, room);
    await alice.sdk.setRoomDirectoryVisibility(room, "public");
    const { chunk } = await bob.sdk.publicRooms({ filter: { generic_search_term: "salon" } });
    assert.ok(chunk.some((one) => one.room_id === room));
    assert.equal((await bob.sdk.getRoomIdForAlias(alias)).room_id, room);
    const { room_id: space } = await alice.sdk.createRoom({ preset: "public_chat", creation_content: { type: "m.space" } });
    await alice.sdk.sendStateEvent(space, "m.space.child", { via: ["localhost"] }, room);
    const { rooms } = await bob.sdk.getRoomHierarchy(space);
    assert.deepEqual(rooms.map((one) => one.room_id), [space, room]);
    assert.equal((await bob.sdk.getRoomSummary(alias)).room_id, room);
});
