// The systemd units of a user's root helper, as texts. The socket is the user's alone, and for each connection one
// helper runs with it as standard input, so that nothing of root runs while nobody is connected.
import { helperServiceProgram, helperServiceSocket, helperServiceUnit } from "#wire/helper-service.ts";

export interface UnitFile {
  readonly name: string;
  readonly text: string;
}

/** chosen: sessions of one user at once, one a connection. */
const maxConnections = 16;

export function unitFiles(uid: number): readonly UnitFile[] {
  return [
    { name: helperServiceUnit(uid), text: socketUnit(uid) },
    { name: sessionUnit(uid), text: serviceUnit(uid) },
  ];
}

/** The template of the user's sessions. */
export function sessionUnit(uid: number): string {
  return helperServiceUnit(uid).replace(/\.socket$/, "@.service");
}

function socketUnit(uid: number): string {
  return `# Made by \`telepresence helper install\`; \`telepresence helper uninstall\` removes it.
[Unit]
Description=Telepresence root helper for user ${uid}

[Socket]
ListenStream=${helperServiceSocket(uid)}
SocketUser=${uid}
SocketMode=0600
DirectoryMode=0755
RemoveOnStop=yes
Accept=yes
MaxConnections=${maxConnections}

[Install]
WantedBy=sockets.target
`;
}

/** It needs a device, routes, nft tables and link settings: CAP_NET_ADMIN, and nothing of anybody's files. */
function serviceUnit(uid: number): string {
  return `# Made by \`telepresence helper install\`; \`telepresence helper uninstall\` removes it.
[Unit]
Description=Telepresence root helper, a session of user ${uid}
CollectMode=inactive-or-failed

[Service]
ExecStart=${helperServiceProgram}/node/bin/node -- ${helperServiceProgram}/helper/start.js service ${uid}
StandardInput=socket
StandardOutput=journal
StandardError=journal
TimeoutStopSec=15
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectHome=yes
ProtectSystem=strict
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
`;
}
