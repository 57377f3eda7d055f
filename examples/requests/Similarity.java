// The similarity of two face crops, with Java 17 or newer and no library: java Similarity.java a.jpg b.jpg
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;

public class Similarity {
    static final URI SERVICE = URI.create("http://localhost:5555/embed?normalize=true");
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    // The answer for a picture, which is the body: no form is needed. Its bytes are float32, no JSON has to be read.
    static HttpResponse<byte[]> embed(String path) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(SERVICE)
                .timeout(Duration.ofSeconds(30))
                .header("Content-Type", "application/octet-stream")
                .header("Accept", "application/octet-stream")
                .POST(BodyPublishers.ofFile(Path.of(path)))
                .build();
        HttpResponse<byte[]> answer = null;
        for (int attempt = 0; attempt < 10; attempt++) {
            answer = CLIENT.send(request, BodyHandlers.ofByteArray());
            if (answer.statusCode() != 429 && answer.statusCode() != 503) break; // full, or restarting
            Thread.sleep(1000 * answer.headers().firstValueAsLong("Retry-After").orElse(1));
        }
        if (answer.statusCode() != 200) {
            System.err.println(path + ": " + new String(answer.body(), "UTF-8")); // JSON with `code` and `detail`
            System.exit(1);
        }
        return answer;
    }

    static FloatBuffer vector(HttpResponse<byte[]> answer) {
        return ByteBuffer.wrap(answer.body()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }

    static String recipe(HttpResponse<byte[]> answer) {
        return answer.headers().firstValue("X-Embedding-Recipe").orElseThrow();
    }

    public static void main(String[] paths) throws Exception {
        HttpResponse<byte[]> one = embed(paths[0]), other = embed(paths[1]);
        if (!recipe(one).equals(recipe(other))) {
            System.err.println("Made in different ways: do not compare.");
            System.exit(1);
        }
        FloatBuffer a = vector(one), b = vector(other);
        double similarity = 0;
        while (a.hasRemaining()) similarity += a.get() * b.get();
        System.out.printf(Locale.ROOT, "similarity %.3f%n", similarity);
    }
}
