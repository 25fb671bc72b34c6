import { describe, expect, test } from "vitest";
import { programEnvironment, sudoUser } from "./config.ts";

describe("programEnvironment()", () => {
  // sudoers without `secure_path` leaves PATH as the user has it.
  test("takes no PATH, and nothing else, from a user who called sudo", () => {
    const env = { SUDO_UID: "1000", PATH: "/home/ada/bin", DBUS_SYSTEM_BUS_ADDRESS: "unix:path=/tmp/bus" };
    expect(programEnvironment(env)).toEqual({ PATH: expect.stringMatching(/^\/usr\/local\/sbin:/), LC_ALL: "C" });
    expect(programEnvironment({ ...env, SUDO_UID: "nobody" })["PATH"]).not.toContain("ada");
  });
  test("takes root's own PATH", () => {
    expect(programEnvironment({ PATH: "/opt/bin" })["PATH"]).toBe("/opt/bin");
    expect(programEnvironment({})["PATH"]).toContain("/usr/bin");
  });
});

describe("sudoUser()", () => {
  test("is a number or nobody", () => {
    expect([sudoUser({ SUDO_UID: "1000" }), sudoUser({ SUDO_UID: "x" }), sudoUser({})]).toEqual([
      1000,
      undefined,
      undefined,
    ]);
  });
});
