import convex.core.crypto.AKeyPair;
import convex.core.cvm.Keywords;
import convex.core.cvm.State;
import convex.core.data.AccountKey;
import convex.core.data.Blob;
import convex.core.data.Keyword;
import convex.core.init.Init;
import convex.peer.API;
import convex.peer.ConnectionManager;
import convex.peer.Server;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.concurrent.CompletionStage;

/**
 * Starts one reference peer of a network whose others run elsewhere: `Peer INDEX COUNT PORT URL`.
 *
 * Peer i (from 1) has the key of the seed 00..0i, and all have the same genesis. URL is the `host:port` that it registers on chain: what the
 * other peers dial. It prints `PEER port key network` when it runs, then obeys standard input, a line each, and ends with it:
 * `connect HOST PORT` makes the first connection, which no registered name can make, and prints `CONNECT HOST ok` or `CONNECT HOST failed`;
 * `connections` prints `CONNECTIONS n`, the outgoing ones that live.
 */
public final class Peer {
    public static void main(String[] args) throws Exception {
        int index = Integer.parseInt(args[0]);
        int count = Integer.parseInt(args[1]);
        AKeyPair own = null;
        List<AccountKey> keys = new ArrayList<>();
        for (int i = 1; i <= count; i++) {
            byte[] seed = new byte[32];
            seed[31] = (byte) i;
            AKeyPair pair = AKeyPair.create(Blob.wrap(seed));
            keys.add(pair.getAccountKey());
            if (i == index) own = pair;
        }
        State genesis = Init.createState(keys);
        HashMap<Keyword, Object> config = new HashMap<>();
        config.put(Keywords.KEYPAIR, own);
        config.put(Keywords.STATE, genesis);
        config.put(Keywords.PORT, Integer.parseInt(args[2]));
        config.put(Keywords.URL, args[3]);
        config.put(Keywords.AUTO_MANAGE, true);
        Server server = API.launchPeer(config);
        say("PEER " + server.getPort() + " " + server.getPeerKey().toHexString() + " " + server.getPeer().getNetworkID().toHexString());
        ConnectionManager connections = server.getConnectionManager();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.trim().split(" ");
            if (words[0].equals("connect")) {
                say("CONNECT " + words[1] + " " + (connect(connections, words[1], Integer.parseInt(words[2])) ? "ok" : "failed"));
            } else if (words[0].equals("connections")) {
                say("CONNECTIONS " + connections.getConnectionCount());
            }
        }
        server.close();
        System.exit(0);
    }

    /** By reflection: what it gives differs by version, a connection up to 0.8.0, a future of one later. */
    private static boolean connect(ConnectionManager connections, String host, int port) {
        try {
            Object made = ConnectionManager.class.getMethod("connectToPeer", InetSocketAddress.class)
                .invoke(connections, new InetSocketAddress(host, port));
            if (made instanceof CompletionStage<?> later) made = later.toCompletableFuture().get();
            return made != null;
        } catch (Exception e) {
            System.err.println("connect " + host + ": " + (e.getCause() == null ? e : e.getCause()));
            return false;
        }
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
