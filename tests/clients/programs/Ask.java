// Java's HttpClient as it comes: java Ask.java URL PHOTO BIG. One line for each answer: name, status, body.

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;

public class Ask {
    private static void ask(HttpClient client, String name, String method, String url, String kind, BodyPublisher body)
            throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url)).header("Content-Type", kind).method(method, body);
        var answer = client.send(request.timeout(Duration.ofSeconds(60)).build(), BodyHandlers.ofString());
        System.out.println(name + " " + answer.statusCode() + " " + answer.body());
    }

    public static void main(String[] given) throws Exception {
        String url = given[0], livez = url.substring(0, url.indexOf("/embed")) + "/livez";
        byte[] photo = Files.readAllBytes(Path.of(given[1])), big = Files.readAllBytes(Path.of(given[2]));
        String uri = "data:image/jpeg;base64," + Base64.getEncoder().encodeToString(photo);
        BodyPublisher json = BodyPublishers.ofString("{\"images\": [\"" + uri + "\"]}");
        BodyPublisher chunked = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(big));

        // The default version is HTTP/2: the first request on a connection asks for an upgrade.
        HttpClient first = HttpClient.newHttpClient();
        ask(first, "photo", "POST", url, "image/jpeg", BodyPublishers.ofByteArray(photo));
        ask(first, "photo", "POST", url, "image/jpeg", BodyPublishers.ofByteArray(photo));
        ask(first, "photo", "POST", url, "application/json", json);
        ask(HttpClient.newHttpClient(), "photo", "POST", url, "application/json", json);
        ask(HttpClient.newHttpClient(), "big", "POST", url, "image/bmp", BodyPublishers.ofByteArray(big));
        ask(HttpClient.newHttpClient(), "big", "POST", url, "image/bmp", chunked);
        ask(HttpClient.newHttpClient(), "livez", "GET", livez, "text/plain", BodyPublishers.noBody());
        ask(HttpClient.newHttpClient(), "head", "HEAD", livez, "text/plain", BodyPublishers.noBody());
    }
}
