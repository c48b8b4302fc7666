/** Makes garbage, as any Java program does, and says when it stood still. */
public final class Pauses {
    private static byte[] garbage;

    public static void main(String[] args) {
        long last = System.nanoTime();
        while (true) {
            garbage = new byte[64 << 10];
            long now = System.nanoTime();
            if (now - last > 200_000_000L) {
                System.out.println("stood still for " + (now - last) / 1_000_000 + " ms");
            }
            last = now;
        }
    }
}
