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
 * Starts a network of reference peers on this machine: `Peers PORT...`, a port 0 is chosen by the peer.
 *
 * Peer i (from 1) has the key of the seed 00..0i. One line a peer goes to standard output when all run:
 * `PEER port key network`. It ends when standard input does, so that no peer outlives its test.
 */
public final class Peers {
    public static void main(String[] args) throws Exception {
        List<AKeyPair> pairs = new ArrayList<>();
        List<AccountKey> keys = new ArrayList<>();
        int[] ports = new int[args.length];
        for (int i = 0; i < args.length; i++) {
            byte[] seed = new byte[32];
            seed[31] = (byte) (i + 1);
            pairs.add(AKeyPair.create(Blob.wrap(seed)));
            keys.add(pairs.get(i).getAccountKey());
            ports[i] = Integer.parseInt(args[i]);
        }
        State genesis = Init.createState(keys);
        List<Server> servers = API.launchLocalPeers(pairs, genesis, ports);
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
