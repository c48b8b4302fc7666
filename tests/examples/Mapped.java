import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/** Counts in a file that is mapped, as statistics and metrics libraries do. */
public class Mapped {
    public static void main(String[] arguments) throws Exception {
        try (RandomAccessFile file = new RandomAccessFile(arguments[0], "rw")) {
            file.setLength(1 << 20);
            MappedByteBuffer counters = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
            for (int i = 0; i < 1000; i++) {
                counters.putLong(0, i);
            }
        } catch (InternalError error) {
            System.out.println("caught " + error);
        }
    }
}
