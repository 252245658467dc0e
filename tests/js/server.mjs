// The server under test: a child process with a data directory of its own.

import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";

const config = (data, port) => `
[server]
name = "localhost"
data_dir = ${JSON.stringify(data)}
test_mode = true

[[listeners]]
address = "127.0.0.1"
port = ${port}
apis = ["client", "admin"]

[registration]
mode = "open"
`;

/** Waits until a condition holds, and fails after half a minute. */
export async function until(what, holds) {
    const giveUp = Date.now() + 30_000;
    while (!(await holds())) {
        if (Date.now() > giveUp) throw new Error(`it never came true that ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

function freePort() {
    return new Promise((resolve, reject) => {
        const probe = net.createServer().on("error", reject);
        probe.listen(0, "127.0.0.1", () => {
            const { port } = probe.address();
            probe.close(() => resolve(port));
        });
    });
}

export class Server {
    static async start() {
        const server = new Server();
        const port = await freePort();
        server.url = `http://127.0.0.1:${port}`;
        server.directory = fs.mkdtempSync(path.join(os.tmpdir(), "parlour-js-"));
        const file = path.join(server.directory, "parlour.toml");
        fs.writeFileSync(file, config(path.join(server.directory, "data"), port));
        server.log = path.join(server.directory, "server.log");
        const log = fs.openSync(server.log, "a");
        // The settings of whoever runs the tests are not the settings of the tests.
        const own = Object.entries(process.env).filter(([name]) => !name.startsWith("PARLOUR_"));
        server.process = spawn(process.env.TEST_BINARY, ["serve", "--config", file], {
            env: Object.fromEntries(own),
            stdio: ["ignore", log, log],
        });
        await until("the server answers", async () => {
            if (server.process.exitCode !== null) throw new Error(fs.readFileSync(server.log, "utf8"));
            return fetch(`${server.url}/_matrix/client/versions`).then((answer) => answer.ok, () => false);
        });
        return server;
    }

    async stop() {
        const ended = new Promise((resolve) => this.process.on("exit", resolve));
        this.process.kill("SIGKILL");
        await ended;
        fs.rmSync(this.directory, { recursive: true });
    }
}

/** Several homeservers that find each other, of these kinds: `parlour`, `synapse`. */
export class Neighbours {
    static async start(kinds) {
        const neighbours = new Neighbours();
        const command = [process.env.TEST_SERVERS, ...kinds];
        neighbours.process = spawn(process.env.TEST_PYTHON, command, { stdio: ["pipe", "pipe", "inherit"] });
        const ended = new Promise((resolve) => neighbours.process.on("exit", resolve));
        neighbours.ended = ended;
        const lines = readline.createInterface({ input: neighbours.process.stdout });
        const line = new Promise((resolve) => lines.once("line", resolve));
        const said = await Promise.race([line, ended]);
        if (typeof said !== "string") throw new Error("the servers did not start");
        neighbours.servers = JSON.parse(said);
        return neighbours;
    }

    async stop() {
        this.process.stdin.end();
        await this.ended;
    }
}
