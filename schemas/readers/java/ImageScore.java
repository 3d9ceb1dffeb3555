import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.DateTimeException;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.Set;
import java.util.TreeMap;

/**
 * Reads listings' scores from Redis, and says which arm of an experiment a user sees.
 *
 * <p>Needs Java 17 and nothing else: copy this file. The bytes are described in schemas/redis_record.py, the rule of the
 * experiments in schemas/experiment.py.
 */
public final class ImageScore {
  private static final int SIZE = 36;
  private static final int MAX_PHOTOS = 20;
  private static final int COVER_MISSING = 1;
  private static final int PARTIAL = 2;
  private static final int BUCKETS = 10_000;

  private ImageScore() {}

  /**
   * What search reads of a listing. Scores and aspects are 0..1; `coverScore` is empty when the cover has none.
   *
   * @param eventVersion at most 2^53 - 1
   */
  public record Record(
      double score,
      OptionalDouble coverScore,
      int bestPosition,
      int scoredPhotos,
      boolean partial,
      List<Double> aspects,
      long eventVersion,
      Instant scoredAt,
      long modelVersion) {}

  /** Returns the Redis key of a listing's record. */
  public static String key(String listingId) {
    return "image_score:{" + listingId + "}";
  }

  /** Reads the value of a listing's key, of this or a later format version; empty: damaged, as good as no score. */
  public static Optional<Record> parse(byte[] data) {
    if (data.length < SIZE || data[0] == 0 || data[3] < 1 || data[3] > MAX_PHOTOS) {
      return Optional.empty();
    }
    if (data[2] < 0 || data[2] >= MAX_PHOTOS) {
      return Optional.empty();
    }
    ByteBuffer fields = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
    boolean hasCover = (data[1] & COVER_MISSING) == 0;
    Double[] aspects = new Double[6];
    for (int i = 0; i < aspects.length; i++) {
      aspects[i] = (data[8 + i] & 0xff) / 255.0;
    }
    try {
      return Optional.of(
          new Record(
              (fields.getShort(4) & 0xffff) / 65535.0,
              hasCover ? OptionalDouble.of((fields.getShort(6) & 0xffff) / 65535.0) : OptionalDouble.empty(),
              data[2],
              data[3],
              (data[1] & PARTIAL) != 0,
              List.of(aspects),
              fields.getLong(16),
              Instant.ofEpochMilli(fields.getLong(24)),
              fields.getInt(32) & 0xffffffffL));
    } catch (DateTimeException error) {
      return Optional.empty();
    }
  }

  /**
   * Asks Redis over a connection of its own, one question at a time; empty: the listing has no score, which is not a low
   * one. Services have a client with a pool: give what it reads from `key` to `parse`.
   */
  public static Optional<Record> get(Socket connection, String listingId) throws IOException {
    return get(connection.getInputStream(), connection.getOutputStream(), listingId);
  }

  static Optional<Record> get(InputStream in, OutputStream out, String listingId) throws IOException {
    byte[] key = key(listingId).getBytes(StandardCharsets.UTF_8);
    ByteArrayOutputStream question = new ByteArrayOutputStream();
    question.writeBytes(("*2\r\n$3\r\nGET\r\n$" + key.length + "\r\n").getBytes(StandardCharsets.US_ASCII));
    question.writeBytes(key);
    question.writeBytes("\r\n".getBytes(StandardCharsets.US_ASCII));
    out.write(question.toByteArray());
    out.flush();
    String line = line(in);
    if (line.equals("$-1") || line.equals("_")) {
      return Optional.empty();
    }
    if (!line.matches("\\$\\d{1,6}")) {
      throw new IOException("redis: " + line);
    }
    byte[] data = new byte[Integer.parseInt(line.substring(1))];
    DataInputStream rest = new DataInputStream(in);
    rest.readFully(data);
    rest.readFully(new byte[2]);
    return parse(data);
  }

  private static String line(InputStream in) throws IOException {
    StringBuilder text = new StringBuilder();
    for (int next = in.read(); next != '\n'; next = in.read()) {
      if (next < 0) {
        throw new EOFException("redis closed the connection");
      }
      if (next != '\r') {
        text.append((char) next);
      }
    }
    return text.toString();
  }

  /** The file that `image-score experiment assign` reads; `exclude` are users who are in no experiment. */
  public record Experiments(List<Layer> layers, Set<String> exclude) {
    /** Returns the user's arm in each experiment that the user is in. */
    public Map<String, String> assign(String user) {
      Map<String, String> found = new TreeMap<>();
      for (Layer layer : layers) {
        Optional<Experiment> forced =
            layer.experiments.stream().filter(one -> one.force.containsKey(user)).findFirst();
        if (forced.isPresent()) {
          found.put(forced.get().name, forced.get().force.get(user));
        } else if (!exclude.contains(user)) {
          long bucket = hash(layer.salt + "/" + user) % BUCKETS;
          for (Experiment experiment : layer.experiments) {
            experiment.armOf(user, bucket).ifPresent(arm -> found.put(experiment.name, arm));
          }
        }
      }
      return found;
    }
  }

  /** Experiments that exclude each other. */
  public record Layer(String name, String salt, List<Experiment> experiments) {}

  /** Owns the buckets first..last (0..9999) of its layer; `ramp` is in 1/10000 of its users. */
  public record Experiment(
      String name,
      String salt,
      long first,
      long last,
      long ramp,
      List<Arm> arms,
      Set<String> exclude,
      Map<String, String> force) {
    private Optional<String> armOf(String user, long bucket) {
      if (exclude.contains(user) || bucket < first || bucket > last) {
        return Optional.empty();
      }
      if (hash(salt + "/ramp/" + user) % BUCKETS >= ramp) {
        return Optional.empty();
      }
      long left = hash(salt + "/arm/" + user) % arms.stream().mapToLong(Arm::weight).sum();
      for (Arm arm : arms) {
        if (left < arm.weight) {
          return Optional.of(arm.name);
        }
        left -= arm.weight;
      }
      return Optional.empty();
    }
  }

  /** One way of an experiment. */
  public record Arm(String name, long weight) {}

  /** Returns the first seven bytes of the text's SHA-256. */
  private static long hash(String text) {
    try {
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      return ByteBuffer.wrap(sha.digest(text.getBytes(StandardCharsets.UTF_8))).getLong() >>> 8;
    } catch (NoSuchAlgorithmException impossible) {
      throw new AssertionError(impossible);
    }
  }
}
