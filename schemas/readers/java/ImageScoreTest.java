import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.Set;
import java.util.TreeMap;

/** Checks ImageScore.java against schemas/vectors: javac -d build *.java && java -cp build ImageScoreTest VECTORS. */
public final class ImageScoreTest {
  private static int checks = 0;
  private static int failures = 0;

  public static void main(String[] arguments) throws IOException {
    Path vectors = Path.of(arguments.length > 0 ? arguments[0] : "../../vectors");
    records(object(Json.read(vectors.resolve("redis_record.json"))));
    experiments(object(Json.read(vectors.resolve("experiments.json"))));
    answers();
    System.out.println(checks - failures + " passed, " + failures + " failed");
    System.exit(failures == 0 && checks > 70 ? 0 : 1);
  }

  private static void check(String name, Object got, Object want) {
    checks++;
    if (!got.equals(want)) {
      failures++;
      System.out.println(name + ": got " + got + ", want " + want);
    }
  }

  private static void records(Map<String, Object> vectors) {
    for (Object one : list(vectors.get("keys"))) {
      check("key", ImageScore.key(text(one, "listing_id")), text(one, "key"));
    }
    for (Object one : list(vectors.get("records"))) {
      Object meaning = object(one).get("record");
      byte[] data = HexFormat.of().parseHex(text(one, "hex"));
      check(text(one, "name"), ImageScore.parse(data), Optional.ofNullable(meaning).map(ImageScoreTest::record));
    }
  }

  private static ImageScore.Record record(Object meaning) {
    Map<String, Object> fields = object(meaning);
    List<Double> aspects = new ArrayList<>();
    list(fields.get("aspects")).forEach(aspect -> aspects.add(((Number) aspect).doubleValue()));
    Object cover = fields.get("cover_score");
    return new ImageScore.Record(
        ((Number) fields.get("score")).doubleValue(),
        cover == null ? OptionalDouble.empty() : OptionalDouble.of(((Number) cover).doubleValue()),
        (int) number(meaning, "best_position", 0),
        (int) number(meaning, "scored_photos", 0),
        (Boolean) fields.get("partial"),
        aspects,
        number(meaning, "event_version", 0),
        Instant.ofEpochMilli(number(meaning, "scored_at_ms", 0)),
        number(meaning, "model_version", 0));
  }

  private static void experiments(Map<String, Object> vectors) {
    Map<String, Object> file = object(vectors.get("experiments"));
    List<ImageScore.Layer> layers = new ArrayList<>();
    for (Object layer : list(file.get("layers"))) {
      List<ImageScore.Experiment> found = new ArrayList<>();
      list(object(layer).get("experiments")).forEach(one -> found.add(experiment(one)));
      layers.add(new ImageScore.Layer(text(layer, "name"), text(layer, "salt"), found));
    }
    ImageScore.Experiments all = new ImageScore.Experiments(layers, strings(file.get("exclude")));
    for (Object user : list(vectors.get("users"))) {
      check(text(user, "user"), all.assign(text(user, "user")), object(user).get("arms"));
    }
  }

  private static ImageScore.Experiment experiment(Object one) {
    List<ImageScore.Arm> arms = new ArrayList<>();
    for (Object arm : list(object(one).get("arms"))) {
      arms.add(new ImageScore.Arm(text(arm, "name"), number(arm, "weight", 1)));
    }
    Map<String, String> force = new TreeMap<>();
    object(object(one).get("force")).forEach((user, arm) -> force.put(user, (String) arm));
    return new ImageScore.Experiment(
        text(one, "name"),
        text(one, "salt"),
        number(one, "first", 0),
        number(one, "last", 9999),
        number(one, "ramp", 10000),
        arms,
        strings(object(one).get("exclude")),
        force);
  }

  private static void answers() throws IOException {
    check("no score", answer("$-1\r\n"), Optional.empty());
    check("damaged", answer("$2\r\nab\r\n"), Optional.empty());
    for (String wrong : List.of("-NOAUTH Authentication required.\r\n", ":1\r\n", "$99\r\nab", "")) {
      String outcome = "taken for a record";
      try {
        answer(wrong);
      } catch (IOException error) {
        outcome = "refused";
      }
      check(wrong, outcome, "refused");
    }
  }

  private static Optional<ImageScore.Record> answer(String bytes) throws IOException {
    ByteArrayInputStream in = new ByteArrayInputStream(bytes.getBytes(StandardCharsets.US_ASCII));
    return ImageScore.get(in, new ByteArrayOutputStream(), "m1");
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> object(Object value) {
    return (Map<String, Object>) value;
  }

  @SuppressWarnings("unchecked")
  private static List<Object> list(Object value) {
    return (List<Object>) value;
  }

  private static Set<String> strings(Object value) {
    Set<String> found = new HashSet<>();
    list(value).forEach(one -> found.add((String) one));
    return found;
  }

  private static String text(Object of, String name) {
    return (String) object(of).get(name);
  }

  private static long number(Object of, String name, long otherwise) {
    Object found = object(of).get(name);
    return found == null ? otherwise : ((Number) found).longValue();
  }

  /** As much of JSON as the vectors need; the standard library has none. */
  private static final class Json {
    private final String text;
    private int at = 0;

    private Json(String text) {
      this.text = text;
    }

    static Object read(Path path) throws IOException {
      return new Json(Files.readString(path)).value();
    }

    private char next() {
      while (Character.isWhitespace(text.charAt(at))) {
        at++;
      }
      return text.charAt(at);
    }

    private Object value() {
      switch (next()) {
        case '{':
          return object();
        case '[':
          return array();
        case '"':
          return string();
        default:
          return literal();
      }
    }

    private Map<String, Object> object() {
      Map<String, Object> found = new TreeMap<>();
      for (at++; next() != '}'; at += next() == ',' ? 1 : 0) {
        String name = string();
        next();
        at++;
        found.put(name, value());
      }
      at++;
      return found;
    }

    private List<Object> array() {
      List<Object> found = new ArrayList<>();
      for (at++; next() != ']'; at += next() == ',' ? 1 : 0) {
        found.add(value());
      }
      at++;
      return found;
    }

    private String string() {
      next();
      StringBuilder found = new StringBuilder();
      for (at++; text.charAt(at) != '"'; at++) {
        if (text.charAt(at) != '\\') {
          found.append(text.charAt(at));
        } else if (text.charAt(++at) == 'u') {
          found.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
          at += 4;
        } else {
          found.append(text.charAt(at));
        }
      }
      at++;
      return found.toString();
    }

    private Object literal() {
      int from = at;
      while (at < text.length() && "+-.eE".indexOf(text.charAt(at)) + 1 + (Character.isLetterOrDigit(text.charAt(at)) ? 1 : 0) > 0) {
        at++;
      }
      String word = text.substring(from, at);
      if (word.equals("null")) {
        return null;
      }
      if (word.equals("true") || word.equals("false")) {
        return Boolean.valueOf(word);
      }
      if (word.matches("-?\\d+")) {
        return Long.valueOf(word);
      }
      return Double.valueOf(word);
    }
  }
}
