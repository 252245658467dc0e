// A user with matrix-js-sdk as the client, unchanged, and a second way to the server that asks it directly.

import assert from "node:assert/strict";

import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

import { until } from "./server.mjs";

export const PASSWORD = "correct horse battery staple";

// What the SDK says while it works; most of it through a logger of its own, whatever it is given.
logger.setLevel("silent");
const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => silent };
const id = (event) => event.getId();
const sorted = (list) => [...list].sort();

export class Person {
    static async register(server, name) {
        const person = new Person();
        person.server = server;
        const stranger = sdk.createClient({ baseUrl: server.url, logger: silent });
        const account = await stranger.registerRequest({
            username: name,
            password: PASSWORD,
            auth: { type: "m.login.dummy" },
        });
        await person.#connect(account);
        return person;
    }

    /** The same user on another device, by password; it may have the key to the user's secrets. */
    async elsewhere({ privateKey } = {}) {
        const person = new Person();
        Object.assign(person, { server: this.server, privateKey });
        const stranger = sdk.createClient({ baseUrl: this.server.url, logger: silent });
        const account = await stranger.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.id },
            password: PASSWORD,
        });
        await person.#connect(account);
        return person;
    }

    async #connect({ user_id: userId, access_token: accessToken, device_id: deviceId }) {
        Object.assign(this, { id: userId, token: accessToken });
        const baseUrl = this.server.url;
        const cryptoCallbacks = {
            cacheSecretStorageKey: (_id, _about, key) => (this.privateKey = key),
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], this.privateKey],
        };
        const options = { baseUrl, userId, accessToken, deviceId, cryptoCallbacks };
        this.sdk = sdk.createClient({ ...options, timelineSupport: true, logger: silent });
        await this.start();
    }

    /** Begins anew with end-to-end encryption, whose keys are kept in memory. */
    async encrypt() {
        this.stop();
        await this.sdk.initRustCrypto({ useIndexedDB: false });
        await this.start();
    }

    /** Starts to sync and waits for the first answer. */
    async start() {
        let prepared = false;
        this.sdk.once(sdk.ClientEvent.Sync, () => (prepared = true));
        // As Element has it: what is on its way stands apart, and the timeline is the server's.
        const pendingEventOrdering = "detached";
        await this.sdk.startClient({ initialSyncLimit: 5, threadSupport: true, lazyLoadMembers: true, pendingEventOrdering });
        await until(`${this.id} has synced`, () => prepared && this.sdk.isInitialSyncComplete());
    }

    stop() {
        this.sdk.stopClient();
    }

    /** The SDK's view of a room. */
    room(room) {
        return this.sdk.getRoom(room);
    }

    /** What the server answers, without the SDK. */
    async ask(path) {
        const headers = { Authorization: `Bearer ${this.token}` };
        const answer = await fetch(`${this.server.url}/_matrix/client/${path}`, { headers });
        const body = await answer.json();
        assert.equal(answer.status, 200, `${path}: ${JSON.stringify(body)}`);
        return body;
    }

    /** Says something in a room. */
    async say(room, body, more = {}) {
        const content = { msgtype: "m.text", body, ...more };
        return (await this.sdk.sendEvent(room, null, "m.room.message", content)).event_id;
    }

    /**
     * Answers in a thread. Without the SDK's local echo: it fails when /sync brings the event before the
     * answer to sending it has come, while the SDK is still setting up the thread.
     */
    async reply(room, root, body) {
        const content = { msgtype: "m.text", body, "m.relates_to": { rel_type: "m.thread", event_id: root } };
        const path = `/rooms/${encodeURIComponent(room)}/send/m.room.message/${this.sdk.makeTxnId()}`;
        return (await this.sdk.http.authedRequest("PUT", path, undefined, content)).event_id;
    }

    /** Takes back what the server has refused; the SDK would send nothing after it. */
    forgetRefused(room) {
        const refused = this.room(room).getPendingEvents().filter((event) => event.status === sdk.EventStatus.NOT_SENT);
        refused.forEach((event) => this.sdk.cancelPendingEvent(event));
    }

    /** Waits until the SDK knows an event. */
    async sees(room, event) {
        await until(`${this.id} sees ${event}`, () => {
            const event_ = this.room(room)?.findEventById(event);
            return event_ !== undefined && event_.status === null;
        });
        return this.room(room).findEventById(event);
    }

    /** Pages back to the beginning of a room or thread, as Element does; gives the ids of all its events. */
    async pageBack(timelines) {
        const window = new sdk.TimelineWindow(this.sdk, timelines);
        await window.load(undefined, 7);
        while (window.canPaginate("b")) await window.paginate("b", 7);
        return window.getEvents().filter((event) => !isAside(event.getWireContent())).map(id);
    }

    /** All events of a room that the server shows, oldest first. */
    async history(room) {
        const events = [];
        let from = "";
        for (;;) {
            const page = await this.ask(`v3/rooms/${encodeURIComponent(room)}/messages?dir=f&limit=30${from}`);
            events.push(...page.chunk);
            if (!page.end) return events;
            from = `&from=${encodeURIComponent(page.end)}`;
        }
    }

    /** Fails unless the SDK has of a room what the server has: state, members, counts, the whole timeline. */
    async agreesOn(room) {
        const at = `v3/rooms/${encodeURIComponent(room)}`;
        await this.room(room).loadMembersIfNeeded();
        const timeline = await this.pageBack(this.room(room).getUnfilteredTimelineSet());

        const current = this.room(room).getLiveTimeline().getState("f");
        for (const truth of await this.ask(`${at}/state`)) {
            const own = current.getStateEvents(truth.type, truth.state_key);
            assert.equal(own?.getId(), truth.event_id, `${truth.type} ${truth.state_key}`);
            // The SDK fills in what an invite does not say, with nothing.
            assert.deepEqual(JSON.parse(JSON.stringify(own.getContent())), truth.content);
        }
        const { joined } = await this.ask(`${at}/joined_members`);
        assert.deepEqual(sorted(this.room(room).getJoinedMembers().map((m) => m.userId)), sorted(Object.keys(joined)));
        for (const [user, { display_name: name }] of Object.entries(joined)) {
            assert.equal(this.room(room).getMember(user).rawDisplayName, name ?? user);
        }

        const truth = await this.history(room);
        const roots = new Set(this.room(room).getThreads().map((thread) => thread.id));
        const main = truth.filter((event) => !isAside(event.content) && !inThread(event, truth, roots));
        const ids = main.map((event) => event.event_id);
        assert.deepEqual(timeline, ids, "the main timeline");
        await this.#agreesOnCounts(room);
    }

    async #agreesOnCounts(room) {
        const filter = encodeURIComponent(JSON.stringify({ room: { rooms: [room], timeline: { unread_thread_notifications: true } } }));
        const about = (await this.ask(`v3/sync?filter=${filter}`)).rooms.join[room];
        const threads = about.unread_thread_notifications ?? {};
        for (const [kind, key] of [["total", "notification_count"], ["highlight", "highlight_count"]]) {
            let all = about.unread_notifications[key];
            for (const [thread, counts] of Object.entries(threads)) {
                assert.equal(this.room(room).getThreadUnreadNotificationCount(thread, kind), counts[key], `${kind} of ${thread}`);
                all += counts[key];
            }
            assert.equal(this.room(room).getUnreadNotificationCount(kind), all, kind);
        }
    }
}

/** Whether an event stands beside the timeline: an edit or a reaction, which the SDK puts in it only if it came later. */
function isAside(content) {
    const relation = content["m.relates_to"]?.rel_type;
    return relation !== undefined && relation !== "m.thread";
}

/** Whether the SDK shows an event in its thread alone: a reply there, or what relates to one. */
function inThread(event, history, roots) {
    const relates = event.content["m.relates_to"];
    if (relates?.rel_type === "m.thread") return roots.has(relates.event_id);
    const target = history.find((other) => other.event_id === (relates?.event_id ?? event.redacts));
    return target !== undefined && inThread(target, history, roots);
}
