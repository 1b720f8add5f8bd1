<?php
// A client of the founding envelope as control planes in PHP write it. Shares nothing with the agent.
//   php call.php http://HOST:8010/NAMESPACE KEYFILE METHOD PARAMS_JSON
[, $url, $keyFile, $method, $params] = $argv;
$raw = base64_decode(preg_replace('/\s/', '', file_get_contents($keyFile)));
$key = substr($raw, 0, 24);
$iv = substr($raw, -8);
$request = json_encode(['method' => $method, 'params' => json_decode($params, true) ?: new stdClass, 'id' => microtime(true)]);
$body = base64_encode(openssl_encrypt($request, 'des-ede3-cbc', $key, OPENSSL_RAW_DATA, $iv));
$date = gmdate('D d M Y H:i:s') . ' UTC';
$signature = base64_encode(hash_hmac('sha1', $body . $date, $raw, true));
$context = stream_context_create(['http' => [
    'method' => 'POST', 'content' => $body, 'ignore_errors' => true,
    'header' => "Date: $date\r\nX-Signature: $signature\r\nContent-Type: application/x-www-form-urlencoded\r\n",
]]);
$answer = file_get_contents($url, false, $context);
if (!preg_match('~ 200 ~', $http_response_header[0])) {
    fwrite(STDERR, $http_response_header[0] . ': ' . $answer);
    exit(1);
}
$headers = [];
foreach ($http_response_header as $line) {
    [$name, $value] = array_pad(explode(': ', $line, 2), 2, '');
    $headers[strtolower($name)] = $value;
}
if (!hash_equals(base64_encode(hash_hmac('sha1', $answer . $headers['date'], $raw, true)), $headers['x-signature'])) {
    fwrite(STDERR, "the answer's signature does not match\n");
    exit(1);
}
echo rtrim(openssl_decrypt(base64_decode($answer), 'des-ede3-cbc', $key, OPENSSL_RAW_DATA, $iv), "\0..\x1f"), "\n";
