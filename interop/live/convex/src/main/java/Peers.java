import convex.core.crypto.AKeyPair;
import convex.core.cvm.State;
import convex.core.data.AccountKey;
import convex.core.data.Blob;
import convex.core.init.Init;
import convex.peer.API;
import convex.peer.Server;
import java.util.ArrayList;
import java.util.List;

/**
 * Starts a network of reference peers on this machine: `Peers PORT...`, a port 0 is chosen by the peer; `-` is one that has its stake and
 * isn't started here, `!PORT` one that runs and isn't registered.
 *
 * Peer i (from 1) has the key of the seed 00..0i. One line a running peer goes to standard output when all run:
 * `PEER port key network`. It ends when standard input does, so that no peer outlives its test.
 */
public final class Peers {
    public static void main(String[] args) throws Exception {
        List<AKeyPair> pairs = new ArrayList<>();
        List<AccountKey> keys = new ArrayList<>();
        List<Integer> ports = new ArrayList<>();
        for (int i = 0; i < args.length; i++) {
            byte[] seed = new byte[32];
            seed[31] = (byte) (i + 1);
            AKeyPair pair = AKeyPair.create(Blob.wrap(seed));
            boolean stranger = args[i].startsWith("!");
            if (!stranger) keys.add(pair.getAccountKey());
            if (args[i].equals("-")) continue;
            pairs.add(pair);
            ports.add(Integer.parseInt(stranger ? args[i].substring(1) : args[i]));
        }
        State genesis = Init.createState(keys);
        List<Server> servers = API.launchLocalPeers(pairs, genesis, ports.stream().mapToInt(Integer::intValue).toArray());
        for (Server server : servers) {
            System.out.println("PEER " + server.getPort() + " " + server.getPeerKey().toHexString() + " "
                + server.getPeer().getNetworkID().toHexString());
        }
        System.out.flush();
        while (System.in.read() >= 0) {
            // Nothing is expected: only the end counts.
        }
        for (Server server : servers) server.close();
        System.exit(0);
    }
}
